"""Pictures into words by BLIP, a model of its own (Li et al. 2022, arXiv 2201.12086)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from clipgen.captioning.clip_captioner import BEAMS, LONGEST, clean_captions
from clipgen.clip.encoder import CUBIC, MEAN, STD

if TYPE_CHECKING:
    from PIL.Image import Image

KIND = "blip"


class BlipCaptioner:
    """One loaded BlipForConditionalGeneration with its tokenizer; `preprocessor` is its preprocessor_config.json.

    Pictures are squeezed into a square by Pillow, as the model's own processor of transformers does.
    """

    kind = KIND

    def __init__(self, model: Any, tokenizer: Any, preprocessor: Mapping[str, Any]) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.side: int = model.config.vision_config.image_size
        self.mean = torch.tensor(preprocessor.get("image_mean", MEAN)).view(3, 1, 1)
        self.std = torch.tensor(preprocessor.get("image_std", STD)).view(3, 1, 1)

    @torch.no_grad()
    def caption(self, pictures: Sequence[Image]) -> list[str]:
        """Returns a caption of each RGB picture, always the same, by a beam of four."""
        pixels = torch.stack([self._prepare(picture) for picture in pictures])
        ids = self.model.generate(
            pixel_values=pixels.to(self.model.device), max_new_tokens=LONGEST, num_beams=BEAMS, do_sample=False
        )
        return clean_captions(
            self.tokenizer.batch_decode(ids[:, 1:], skip_special_tokens=True)
        )  # the first is the start

    def _prepare(self, picture: Image) -> torch.Tensor:
        """Returns a picture as the vision tower takes it, [3, side, side]."""
        resized = picture.resize((self.side, self.side), CUBIC)
        levels = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).view(self.side, self.side, 3)
        return (levels.permute(2, 0, 1) / 255 - self.mean) / self.std
