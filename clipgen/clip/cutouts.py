"""Cutouts for CLIP guidance: seeded random squares of an image, resampled differentiably to CLIP's input size."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import torch
from torch import Tensor

from clipgen.clip.resample import resampling_matrices
from clipgen.hashing import seed_from_text

SIDE_MEAN, SIDE_DEVIATION, SIDE_RANGE = 0.8, 0.3, (0.35, 1.0)  # in units of the image's short side


def make_cutouts(pixels: Tensor, image_seeds: Sequence[int], step: int, cutouts: int, size: int) -> Tensor:
    """Returns cutouts [B, cutouts, 3, size, size] of images [B, 3, H, W]; cutout 0 covers the whole short side.

    An image's cutouts depend only on its own seed and the step, not on its batch or the global random state.
    """
    height, width = pixels.shape[-2:]
    return torch.stack(
        [
            crop_squares(image, random_squares(cutout_generator(seed, step), cutouts, height, width), size)
            for image, seed in zip(pixels, image_seeds, strict=True)
        ]
    )


def cutout_generator(image_seed: int, step: int) -> torch.Generator:
    """Returns the CPU generator of one image's cutouts at one step."""
    return torch.Generator("cpu").manual_seed(
        seed_from_text(f"{image_seed}/views/{step}", 8) >> 1
    )  # manual_seed takes a signed 64-bit


def random_squares(generator: torch.Generator, cutouts: int, height: int, width: int) -> Tensor:
    """Draws squares [cutouts, 3] of (left, top, side) in pixels, all inside an image of `height` x `width`.

    Square 0 is the largest possible one, at a random place along the long side. The other sides are drawn from a
    clamped normal distribution. Their centres lie on a grid, filled in random order and jittered within each cell.
    """
    short, others = min(height, width), cutouts - 1
    grid = ceil(sqrt(max(others, 1)))
    # Sides [cutouts], in pixels.
    sides = SIDE_MEAN + SIDE_DEVIATION * torch.randn(cutouts, generator=generator, dtype=torch.float64)
    sides[0] = 1.0
    sides = sides.clamp(*SIDE_RANGE) * short
    # Positions [cutouts, 2] in [0, 1]: 0 is the left (top) edge of the range that the square can move in, 1 the right.
    positions = torch.rand(cutouts, 2, generator=generator, dtype=torch.float64)
    order = torch.randperm(grid * grid, generator=generator)[:others]
    positions[1:] = (positions[1:] + torch.stack([order % grid, order // grid], dim=1)) / grid
    ranges = torch.tensor([width, height], dtype=torch.float64) - sides[:, None]
    return torch.cat([positions * ranges, sides[:, None]], dim=1)


def crop_squares(image: Tensor, squares: Tensor, size: int) -> Tensor:
    """Returns crops [N, 3, size, size] of one image [3, H, W] and squares [N, 3] of (left, top, side)."""
    height, width = image.shape[-2:]
    left, top, sides = squares.unbind(dim=1)
    horizontal = resampling_matrices(left, sides, width, size).to(image)  # [N, size, W]
    vertical = resampling_matrices(top, sides, height, size).to(image)  # [N, size, H]
    return torch.einsum("nyh,chw,nxw->ncyx", vertical, image, horizontal)
