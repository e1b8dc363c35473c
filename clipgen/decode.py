"""Decodes latents into images and previews, and converts between image tensors, PIL images and files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgen.device import MemoryFallback
from clipgen.families import Family
from clipgen.image_file import open_image

if TYPE_CHECKING:
    from PIL.Image import Image

FLAT = 1 / 255  # a picture whose pixels deviate less than this shows nothing


@torch.no_grad()
def decode(family: Family, latents: Tensor, size: tuple[int, int], memory: MemoryFallback) -> Tensor:
    """Returns pictures [B, 3, H, W] in [0, 1] on the CPU, or what is broken of them: see `is_broken`.

    A decoder of less than float32 that breaks one is put into float32, for good, and tries again. `size` is (width,
    height). Raises OutOfMemory.
    """
    pixels = memory.run("decoding", size, family.decode, latents)
    if is_broken(pixels).any() and family.decoder_to_float32():
        pixels = memory.run("decoding", size, family.decode, latents)
    return pixels.clamp(0, 1).cpu()


def is_broken(pixels: Tensor) -> Tensor:
    """Tells of each picture [B, 3, H, W] whether it is flat or not finite: [B], bool."""
    deviation = pixels.flatten(1).std(dim=1)
    return ~(deviation >= FLAT)  # NaN compares as False, so it is broken too


@torch.no_grad()
def decode_preview(family: Family, x0: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns rough pictures [B, 3, H, W] in [0, 1] of a step, fast for every model; `size` is (width, height)."""
    width, height = size
    if family.latent_rgb is None or family.decodes_fast(width, height):
        return family.decode(x0).clamp(0, 1).cpu()
    rough = torch.einsum("bchw,cr->brhw", x0.cpu(), family.latent_rgb) / 2 + 0.5
    return F.interpolate(rough.clamp(0, 1), (height, width), mode="bilinear", align_corners=False)


def to_image(pixels: Tensor) -> Image:
    """Returns a picture [3, H, W] in [0, 1] as PIL, rounded to 8 bits as diffusers does."""
    from PIL import Image

    levels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def read_pixels(path: str) -> Tensor:
    """Returns a picture file as pixels [1, 3, H, W] in [0, 1]; raises ImageFileError."""
    levels = np.asarray(open_image(path), dtype=np.float32)
    return torch.from_numpy(levels / 255).permute(2, 0, 1)[None]
