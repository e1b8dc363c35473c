"""Decodes latents into images and previews, and reads image files as pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgen.device import MemoryFallback
from clipgen.families import Family
from clipgen.image_file import open_image
from clipgen.pixels import to_pixels

FLAT = 1 / 255  # an image with a smaller standard deviation of its pixels is flat


@torch.no_grad()
def decode(family: Family, latents: Tensor, size: tuple[int, int], memory: MemoryFallback) -> Tensor:
    """Returns the decoded images [B, 3, H, W] in [0, 1] on the CPU; `is_broken` finds the failed ones.

    If the decoder runs in half precision and an image is broken, the decoder is converted to float32, for this and all
    later calls, and decodes again. An image that does not fit into memory is decoded in tiles, which shows as small
    differences at their borders. `size` is (width, height). Raises OutOfMemory.
    """

    def run() -> Tensor:
        return memory.run(
            "decoding", size, family.decode, latents, last_resort=lambda: "in tiles" if family.tile_decoder() else None
        )

    pixels = run()
    if is_broken(pixels).any() and family.decoder_to_float32():
        pixels = run()
    return pixels.clamp(0, 1).cpu()


def is_broken(pixels: Tensor) -> Tensor:
    """Returns for each image [B, 3, H, W] whether it is flat or not finite: bool [B]."""
    deviation = pixels.flatten(1).std(dim=1)
    return ~(deviation >= FLAT)  # a comparison with NaN is False, so NaN counts as broken


@torch.no_grad()
def decode_preview(family: Family, x0: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns previews [B, 3, H, W] in [0, 1] of the latents x0; `size` is (width, height).

    A slow decoder is replaced by a linear map from latents to RGB, scaled up bilinearly.
    """
    width, height = size
    if family.latent_rgb is None or family.decodes_fast(width, height):
        return family.decode(x0).clamp(0, 1).cpu()
    rough = torch.einsum("bchw,cr->brhw", x0.cpu(), family.latent_rgb) / 2 + 0.5
    return F.interpolate(rough.clamp(0, 1), (height, width), mode="bilinear", align_corners=False)


def read_pixels(path: str) -> Tensor:
    """Returns an image file as pixels [1, 3, H, W] in [0, 1]; raises ImageFileError."""
    return to_pixels(open_image(path))[None]
