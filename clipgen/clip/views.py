"""Views of a picture for CLIP: the whole of it and squares cut out of it, drawn from a seed, differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import ceil, sqrt

import torch
from torch import Tensor

from clipgen.clip.resample import resampling

SIDE_MEAN, SIDE_DEVIATION, SIDE_RANGE = 0.8, 0.3, (0.35, 1.0)  # of the short side


def views(pixels: Tensor, image_seeds: Sequence[int], step: int, cutouts: int, side: int) -> Tensor:
    """Returns [B, cutouts, 3, side, side] of pictures [B, 3, H, W]; view 0 is the overview.

    A picture's views depend on its own seed, the step and nothing else; no global random state is touched. They are
    resampled by matrices: antialiased, and the same backwards on every device.
    """
    height, width = pixels.shape[-2:]
    return torch.stack(
        [
            cut(picture, boxes(view_generator(seed, step), cutouts, height, width), side)
            for picture, seed in zip(pixels, image_seeds, strict=True)
        ]
    )


def view_generator(image_seed: int, step: int) -> torch.Generator:
    """Returns the CPU generator that draws one picture's views at one step."""
    digest = blake2b(f"{image_seed}/views/{step}".encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "big") >> 1)  # 63 bits: a seed has a sign


def boxes(generator: torch.Generator, cutouts: int, height: int, width: int) -> Tensor:
    """Draws squares [cutouts, 3] of left, top and side, in pixels, inside a picture.

    The first is the largest there is, at a random place along the long side. The others have normal sides, clamped,
    and centres on a grid that is filled in random order, each jittered within its cell.
    """
    short, rest = min(height, width), cutouts - 1
    cells = ceil(sqrt(max(rest, 1)))
    sides = SIDE_MEAN + SIDE_DEVIATION * torch.randn(cutouts, generator=generator, dtype=torch.float64)
    sides[0] = 1.0
    sides = sides.clamp(*SIDE_RANGE) * short
    places = torch.rand(cutouts, 2, generator=generator, dtype=torch.float64)
    order = torch.randperm(cells * cells, generator=generator)[:rest]
    places[1:] = (places[1:] + torch.stack([order % cells, order // cells], dim=1)) / cells
    room = torch.tensor([width, height], dtype=torch.float64) - sides[:, None]
    return torch.cat([places * room, sides[:, None]], dim=1)


def cut(picture: Tensor, squares: Tensor, side: int) -> Tensor:
    """Returns [N, 3, side, side] of one picture [3, H, W] and squares [N, 3] of left, top, side."""
    height, width = picture.shape[-2:]
    left, top, sides = squares.unbind(dim=1)
    across = resampling(left, sides, width, side).to(picture)
    down = resampling(top, sides, height, side).to(picture)
    return torch.einsum("nyh,chw,nxw->ncyx", down, picture, across)
