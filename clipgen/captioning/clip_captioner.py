"""Whatever writes captions of pictures: a head on a CLIP, or a model of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import GPT2Config, PreTrainedConfig

from clipgen.clip.encoder import ClipEncoder

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 32  # tokens of a caption
BEAMS = 4


@strict
class CaptionHeadConfig(PreTrainedConfig):  # type: ignore[misc]
    """Sizes of a head that writes: those of its decoder, a GPT-2, and by subclass those of what stands before it."""

    sub_configs_defaults: ClassVar[dict[str, Any]] = {"decoder": GPT2Config}

    decoder: dict | PreTrainedConfig | None = None  # type: ignore[type-arg]


class Captioner(Protocol):
    """Says what pictures show, always the same; `kind` is by which method: clipcap, coca or blip."""

    @property
    def kind(self) -> str:
        """By which method."""
        ...

    def caption(self, pictures: Sequence[Image]) -> list[str]:
        """Returns a caption of each RGB picture."""
        ...


class CaptionHead(Protocol):
    """What writes from what a CLIP sees: `look` says what that is, [B, ..., width], `write` goes on from there."""

    kind: ClassVar[str]

    @property
    def width(self) -> int:
        """How many numbers it takes at a time."""
        ...

    def encode_images(self, encoder: ClipEncoder, pixels: Tensor) -> Tensor:
        """Returns what it takes of pictures [B, 3, H, W] in [0, 1]."""
        ...

    def caption(self, seen: Tensor, tokenizer: Any) -> list[str]:
        """Returns a caption for each picture seen."""
        ...


class ClipCaptioner:
    """A CLIP and a head on it that writes with the CLIP's own tokens."""

    def __init__(self, encoder: ClipEncoder, head: CaptionHead) -> None:
        self.encoder, self.head = encoder, head

    @property
    def kind(self) -> str:
        """The head's."""
        return self.head.kind

    @torch.no_grad()
    def caption(self, pictures: Sequence[Image]) -> list[str]:
        """Returns a caption of each RGB picture."""
        pixels = torch.stack([self.encoder.to_pixels(picture) for picture in pictures])
        return self.head.caption(self.head.encode_images(self.encoder, pixels), self.encoder.tokenizer)


def generate_captions(decoder: Any, tokenizer: Any, **start: Tensor) -> list[str]:
    """Returns what a GPT2LMHeadModel goes on to say from where it is to start, always the same, by a beam of four."""
    end = tokenizer.eos_token_id
    ids = decoder.generate(
        **start, max_new_tokens=LONGEST, num_beams=BEAMS, do_sample=False, pad_token_id=end, eos_token_id=end
    )
    return clean_captions(tokenizer.batch_decode(ids, skip_special_tokens=True))


def clean_captions(texts: Sequence[str]) -> list[str]:
    """Returns texts on one line each, single spaces between their words, none before a comma."""
    return [" ".join(text.split()).replace(" ,", ",") for text in texts]
