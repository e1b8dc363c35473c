"""Whatever writes captions of pictures: a head on a CLIP, or a model of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipgen.clip.encoder import ClipEncoder

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 32  # tokens of a caption
BEAMS = 4


class Writer(Protocol):
    """Says what pictures show, always the same; `kind` is by which method: clipcap, coca, prior or blip."""

    @property
    def kind(self) -> str:
        """By which method."""
        ...

    def write(self, pictures: Sequence[Image]) -> list[str]:
        """Returns a caption of each RGB picture."""
        ...


class Head(Protocol):
    """What writes from what a CLIP sees: `look` says what that is, [B, ..., width], `write` goes on from there."""

    kind: ClassVar[str]

    @property
    def width(self) -> int:
        """How many numbers it takes at a time."""
        ...

    def look(self, encoder: ClipEncoder, pixels: Tensor) -> Tensor:
        """Returns what it takes of pictures [B, 3, H, W] in [0, 1]."""
        ...

    def write(self, seen: Tensor, tokenizer: Any) -> list[str]:
        """Returns a caption for each picture seen."""
        ...


class ClipWriter:
    """A CLIP and a head on it that writes with the CLIP's own tokens."""

    def __init__(self, encoder: ClipEncoder, head: Head) -> None:
        self.encoder, self.head = encoder, head

    @property
    def kind(self) -> str:
        """The head's."""
        return self.head.kind

    @torch.no_grad()
    def write(self, pictures: Sequence[Image]) -> list[str]:
        """Returns a caption of each RGB picture."""
        pixels = torch.stack([self.encoder.prepare(picture) for picture in pictures])
        return self.head.write(self.head.look(self.encoder, pixels), self.encoder.tokenizer)


def read_decoder(folder: Path) -> Any:
    """Returns the GPT2LMHeadModel of a folder in float32, without the bar that from_pretrained draws.

    Raises RuntimeError for weights that are not the config's.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    decoder = GPT2LMHeadModel(GPT2Config.from_json_file(folder / "config.json"))
    weights = load_file(folder / "model.safetensors")
    decoder.load_state_dict({**weights, "lm_head.weight": weights["transformer.wte.weight"]})
    decoder.tie_weights()
    return decoder.eval()


def save_head(folder: Path, decoder: Any, name: str, part: nn.Module, sizes: Mapping[str, Any]) -> None:
    """Writes a head into a folder: its decoder, what stands before that as NAME.safetensors, its sizes as NAME.json."""
    decoder.save_pretrained(folder)
    (folder / f"{name}.json").write_text(json.dumps(sizes) + "\n", "utf-8")
    weights = {key: value.detach().contiguous() for key, value in part.state_dict().items()}
    save_file(weights, folder / f"{name}.safetensors")


def read_sizes(folder: Path, name: str) -> dict[str, Any]:
    """Returns the sizes that `save_head` wrote."""
    sizes: dict[str, Any] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return sizes


def written(decoder: Any, tokenizer: Any, **start: Tensor) -> list[str]:
    """Returns what a GPT2LMHeadModel goes on to say from where it is to start, always the same, by a beam of four."""
    end = tokenizer.eos_token_id
    ids = decoder.generate(
        **start, max_new_tokens=LONGEST, num_beams=BEAMS, do_sample=False, pad_token_id=end, eos_token_id=end
    )
    return cleaned(tokenizer.batch_decode(ids, skip_special_tokens=True))


def cleaned(texts: Sequence[str]) -> list[str]:
    """Returns texts on one line each, single spaces between their words."""
    return [" ".join(text.split()) for text in texts]
