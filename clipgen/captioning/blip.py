"""Captions by BLIP, which has its own image encoder and needs no CLIP (Li et al. 2022, arXiv 2201.12086)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from clipgen.captioning.clip_captioner import MAX_NEW_TOKENS, NUM_BEAMS, clean_captions
from clipgen.clip.encoder import CUBIC, MEAN, STD
from clipgen.pixels import to_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

KIND = "blip"


class BlipCaptioner:
    """A loaded BlipForConditionalGeneration with its tokenizer; `preprocessor` is its preprocessor_config.json."""

    kind = KIND

    def __init__(self, model: Any, tokenizer: Any, preprocessor: Mapping[str, Any]) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.image_size: int = model.config.vision_config.image_size
        self.mean = torch.tensor(preprocessor.get("image_mean", MEAN)).view(3, 1, 1)
        self.std = torch.tensor(preprocessor.get("image_std", STD)).view(3, 1, 1)

    @torch.no_grad()
    def caption(self, images: Sequence[Image]) -> list[str]:
        """Returns one caption per RGB image, by beam search without sampling."""
        pixel_values = torch.stack([self._preprocess(image) for image in images])  # [B, 3, image_size, image_size]
        ids = self.model.generate(
            pixel_values=pixel_values.to(self.model.device),
            max_new_tokens=MAX_NEW_TOKENS,
            num_beams=NUM_BEAMS,
            do_sample=False,
        )
        return clean_captions(self.tokenizer.batch_decode(ids[:, 1:], skip_special_tokens=True))  # token 0: the start

    def _preprocess(self, image: Image) -> torch.Tensor:
        """Returns pixel_values [3, image_size, image_size], squeezed into a square as BlipImageProcessor does it."""
        size = self.image_size
        resized = image.resize((size, size), CUBIC)
        return (to_pixels(resized) - self.mean) / self.std
