"""Resampling by matrices: Pillow's kernels, differentiable, the same backwards on every device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CUBIC = -0.5  # Keys 1981's parameter, as Pillow and antialiased F.interpolate have it
FINENESS = 2**22  # Pillow keeps its weights as whole numbers of this
LEVELS = 255


def cubic(x: Tensor) -> Tensor:
    """Returns Keys' cubic kernel (1981, IEEE TASSP 29) at distances x >= 0."""
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * CUBIC - 4 * CUBIC
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def linear(x: Tensor) -> Tensor:
    """Returns the triangle kernel at distances x >= 0."""
    return (1 - x).clamp(min=0)


KERNELS: dict[int, Callable[[Tensor], Tensor]] = {2: linear, 3: cubic}  # by Pillow's numbers


def resampling(
    start: Tensor, length: Tensor, size: int, side: int, kernel: Callable[[Tensor], Tensor] = cubic
) -> Tensor:
    """Returns matrices [N, side, size] that resample the stretch from `start` [N] over `length` [N] of a line.

    The kernel is widened where the line shrinks, so that nothing aliases.
    """
    scale = (length / side)[:, None, None]
    centres = start[:, None, None] + (torch.arange(side, dtype=start.dtype)[:, None] + 0.5) * scale  # [N, side, 1]
    distance = (torch.arange(size, dtype=start.dtype) + 0.5 - centres).abs() / scale.clamp(min=1.0)
    weights = kernel(distance)
    return weights / weights.sum(dim=-1, keepdim=True)


def resize(pixels: Tensor, size: tuple[int, int], kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns pictures [..., H, W] in [0, 1] as Pillow resizes them: in 8 bits, across, then down, rounded after each.

    `size` is height and width. Gradients pass the rounding as if it were not there. It needs float64 where there is
    some: float32 rounds one in some ten thousand numbers the other way.
    """
    levels = _rounded(pixels.to(torch.float32 if pixels.device.type == "mps" else torch.float64) * LEVELS)
    down, across = (
        _matrix(before, after, kernel).to(levels) for before, after in zip(pixels.shape[-2:], size, strict=True)
    )
    return (_rounded(down @ _rounded(levels @ across.T)) / LEVELS).to(pixels.dtype)


def _matrix(before: int, after: int, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns the matrix [after, before] of a whole line, its weights as coarse as Pillow's."""
    line = torch.tensor([0.0, before], dtype=torch.float64)
    matrix = resampling(line[:1], line[1:], before, after, kernel)[0]
    return (matrix * FINENESS).round() / FINENESS


def _rounded(levels: Tensor) -> Tensor:
    """Rounds to whole levels, half of one up, within 0 and 255; the gradient is that of the clamp alone."""
    held = levels.clamp(0, LEVELS)
    return held + ((held + 0.5).floor() - held).detach()
