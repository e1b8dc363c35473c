"""The interface of captioners, and the captioner that consists of a CLIP encoder and a trained head."""

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

MAX_NEW_TOKENS = 32
NUM_BEAMS = 4


@strict
class CaptionHeadConfig(PreTrainedConfig):  # type: ignore[misc]
    """The config that all heads share: `decoder` is a GPT-2 config. Subclasses add sizes of the head."""

    sub_configs_defaults: ClassVar[dict[str, Any]] = {"decoder": GPT2Config}

    decoder: dict | PreTrainedConfig | None = None  # type: ignore[type-arg]


class Captioner(Protocol):
    """Captions images deterministically; `kind` is clipcap, coca or blip."""

    @property
    def kind(self) -> str:
        """The method: clipcap, coca or blip."""
        ...

    def caption(self, images: Sequence[Image]) -> list[str]:
        """Returns one caption per RGB image."""
        ...


class CaptionHead(Protocol):
    """A network that writes captions from the outputs of a CLIP image encoder."""

    kind: ClassVar[str]

    @property
    def feature_size(self) -> int:
        """The size of the last axis of the features that the head takes."""
        ...

    def encode_images(self, encoder: ClipEncoder, pixels: Tensor) -> Tensor:
        """Returns the features [B, ..., feature_size] of images [B, 3, H, W] in [0, 1]."""
        ...

    def caption(self, features: Tensor, tokenizer: Any) -> list[str]:
        """Returns one caption per image, from the features that `encode_images` returns."""
        ...


class ClipCaptioner:
    """A CLIP encoder with a head that writes in the vocabulary of the CLIP's tokenizer."""

    def __init__(self, encoder: ClipEncoder, head: CaptionHead) -> None:
        self.encoder, self.head = encoder, head

    @property
    def kind(self) -> str:
        """The method of the head: clipcap or coca."""
        return self.head.kind

    @torch.no_grad()
    def caption(self, images: Sequence[Image]) -> list[str]:
        """Returns one caption per RGB image."""
        pixels = torch.stack([self.encoder.to_pixels(image) for image in images])
        return self.head.caption(self.head.encode_images(self.encoder, pixels), self.encoder.tokenizer)


def generate_captions(decoder: Any, tokenizer: Any, **inputs: Tensor) -> list[str]:
    """Returns the texts that a GPT2LMHeadModel generates from `inputs` by beam search without sampling."""
    end = tokenizer.eos_token_id
    ids = decoder.generate(
        **inputs,
        max_new_tokens=MAX_NEW_TOKENS,
        num_beams=NUM_BEAMS,
        do_sample=False,
        pad_token_id=end,
        eos_token_id=end,
    )
    return clean_captions(tokenizer.batch_decode(ids, skip_special_tokens=True))


def clean_captions(texts: Sequence[str]) -> list[str]:
    """Returns each text on one line, with single spaces and no space before a comma."""
    return [" ".join(text.split()).replace(" ,", ",") for text in texts]
