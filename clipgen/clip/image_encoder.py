"""The vision tower of a CLIP alone: pictures to the vectors that unCLIP's decoders are told, not of unit length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clipgen.clip.encoder import CUBIC, MEAN, STD
from clipgen.clip.resample import KERNELS, resize


class ImageEncoder:
    """A transformers CLIPVisionModelWithProjection and the preprocessor_config.json that says how it is to see."""

    def __init__(self, model: Any, preprocessor: Mapping[str, Any]) -> None:
        self.model = model
        self.image_size: int = model.config.image_size
        self.edge = max(self.image_size, _edge(preprocessor.get("size")))
        known = preprocessor.get("resample", CUBIC)
        self.resample: int = known if known in KERNELS else CUBIC
        self.mean = torch.tensor(preprocessor.get("image_mean", MEAN)).view(3, 1, 1)
        self.std = torch.tensor(preprocessor.get("image_std", STD)).view(3, 1, 1)

    @torch.no_grad()
    def image_embeds(self, pixels: Tensor) -> Tensor:
        """Returns image_embeds [I, D] of pictures [I, 3, H, W] in [0, 1], in float32."""
        seen = self.preprocess(pixels).to(self.model.device, self.model.dtype)
        found: Tensor = self.model(seen).image_embeds
        return found.float()

    @torch.no_grad()
    def zero_image_embeds(self) -> Tensor:
        """Returns image_embeds [1, D] of a picture of zeros, as unconditional halves are told."""
        nothing = torch.zeros(1, 3, self.image_size, self.image_size, device=self.model.device, dtype=self.model.dtype)
        found: Tensor = self.model(nothing).image_embeds
        return found.float()

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Returns the centre squares of pictures as the tower takes them: of its own side, normalised."""
        height, width = pixels.shape[-2:]
        scale = self.edge / min(height, width)
        size = max(self.edge, int(height * scale)), max(self.edge, int(width * scale))
        resized = pixels if size == (height, width) else resize(pixels, size, KERNELS[self.resample])
        top, left = (size[0] - self.image_size) // 2, (size[1] - self.image_size) // 2
        square = resized[..., top : top + self.image_size, left : left + self.image_size]
        return (square - self.mean.to(square)) / self.std.to(square)


def _edge(size: Any) -> int:
    """Returns the shorter side that a preprocessor resizes to, 0 where it names none."""
    return int(size.get("shortest_edge", 0) if isinstance(size, Mapping) else size or 0)
