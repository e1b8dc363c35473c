"""A CLIP vision model with its projection: the image_embeds that condition unCLIP decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clipgen.clip.encoder import CUBIC, MEAN, STD
from clipgen.clip.resample import KERNELS, resize


class ImageEncoder:
    """A transformers CLIPVisionModelWithProjection with its preprocessor_config.json."""

    def __init__(self, model: Any, preprocessor: Mapping[str, Any]) -> None:
        self.model = model
        self.image_size: int = model.config.image_size
        self.shortest_edge = max(self.image_size, _shortest_edge(preprocessor.get("size")))
        resample = preprocessor.get("resample", CUBIC)
        self.resample: int = resample if resample in KERNELS else CUBIC
        self.mean = torch.tensor(preprocessor.get("image_mean", MEAN)).view(3, 1, 1)
        self.std = torch.tensor(preprocessor.get("image_std", STD)).view(3, 1, 1)

    @torch.no_grad()
    def image_embeds(self, pixels: Tensor) -> Tensor:
        """Returns image_embeds [I, D] in float32, not of unit length, of images [I, 3, H, W] in [0, 1]."""
        pixel_values = self.preprocess(pixels).to(self.model.device, self.model.dtype)
        embeds: Tensor = self.model(pixel_values).image_embeds
        return embeds.float()

    @torch.no_grad()
    def zero_image_embeds(self) -> Tensor:
        """Returns image_embeds [1, D] of pixel_values that are all zero: the unconditional half of guidance."""
        size = self.image_size
        pixel_values = torch.zeros(1, 3, size, size, device=self.model.device, dtype=self.model.dtype)
        embeds: Tensor = self.model(pixel_values).image_embeds
        return embeds.float()

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Returns pixel_values [I, 3, image_size, image_size]: images resized, centre-cropped and normalised."""
        height, width = pixels.shape[-2:]
        scale = self.shortest_edge / min(height, width)
        size = max(self.shortest_edge, int(height * scale)), max(self.shortest_edge, int(width * scale))
        resized = pixels if size == (height, width) else resize(pixels, size, KERNELS[self.resample])
        top, left = (size[0] - self.image_size) // 2, (size[1] - self.image_size) // 2
        square = resized[..., top : top + self.image_size, left : left + self.image_size]
        return (square - self.mean.to(square)) / self.std.to(square)


def _shortest_edge(size: Any) -> int:
    """Returns the shorter side that a preprocessor resizes to, or 0 if its config does not say."""
    return int(size.get("shortest_edge", 0) if isinstance(size, Mapping) else size or 0)
