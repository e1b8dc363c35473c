"""Conversion between PIL images and tensors of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def to_pixels(image: Image) -> Tensor:
    """Returns an RGB image as a tensor [3, H, W] in [0, 1]."""
    levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return levels.view(image.height, image.width, 3).permute(2, 0, 1) / 255


def to_image(pixels: Tensor) -> Image:
    """Returns pixels [3, H, W] in [0, 1] on the CPU as a PIL image; rounds to 8 bits as diffusers does."""
    from PIL import Image

    levels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())
