"""Image resampling as matrix products: Pillow's kernels, differentiable and deterministic on every device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CUBIC_A = -0.5  # the kernel's free parameter, as in Pillow and in antialiased F.interpolate
WEIGHT_SCALE = 2**22  # Pillow rounds its weights to multiples of 1 / WEIGHT_SCALE
MAX_LEVEL = 255


def cubic_kernel(x: Tensor) -> Tensor:
    """Returns the cubic convolution kernel (Keys 1981, IEEE TASSP 29) at distances x >= 0."""
    near = ((CUBIC_A + 2) * x - (CUBIC_A + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * CUBIC_A - 4 * CUBIC_A
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def linear_kernel(x: Tensor) -> Tensor:
    """Returns the triangle kernel at distances x >= 0."""
    return (1 - x).clamp(min=0)


KERNELS: dict[int, Callable[[Tensor], Tensor]] = {2: linear_kernel, 3: cubic_kernel}  # by Pillow's Resampling numbers


def resampling_matrices(
    start: Tensor, length: Tensor, size: int, output_size: int, kernel: Callable[[Tensor], Tensor] = cubic_kernel
) -> Tensor:
    """Returns matrices [N, output_size, size] that resample intervals of a line of `size` pixels.

    Interval n begins at `start[n]` and is `length[n]` pixels long. The kernel is widened when the interval shrinks
    (antialiasing).
    """
    scale = (length / output_size)[:, None, None]
    # Centres [N, output_size, 1] of the output pixels, in input pixels.
    centres = start[:, None, None] + (torch.arange(output_size, dtype=start.dtype)[:, None] + 0.5) * scale
    distance = (torch.arange(size, dtype=start.dtype) + 0.5 - centres).abs() / scale.clamp(min=1.0)
    weights = kernel(distance)
    return weights / weights.sum(dim=-1, keepdim=True)


def resize(pixels: Tensor, size: tuple[int, int], kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns images [..., H, W] in [0, 1] resized to `size` (height, width) as Pillow does it, in 8 bits.

    Like Pillow it resizes horizontally, then vertically, and rounds to 8 bits after each. Gradients skip the rounding
    (straight-through). It computes in float64 if the device has it; float32 rounds about one value in 10,000 otherwise.
    """
    levels = _round_levels(pixels.to(torch.float32 if pixels.device.type == "mps" else torch.float64) * MAX_LEVEL)
    vertical, horizontal = (
        _line_matrix(before, after, kernel).to(levels) for before, after in zip(pixels.shape[-2:], size, strict=True)
    )
    return (_round_levels(vertical @ _round_levels(levels @ horizontal.T)) / MAX_LEVEL).to(pixels.dtype)


def _line_matrix(size: int, output_size: int, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns the matrix [output_size, size] that resizes a whole line, with weights rounded as Pillow rounds them."""
    line = torch.tensor([0.0, size], dtype=torch.float64)
    matrix = resampling_matrices(line[:1], line[1:], size, output_size, kernel)[0]
    return (matrix * WEIGHT_SCALE).round() / WEIGHT_SCALE


def _round_levels(levels: Tensor) -> Tensor:
    """Clamps to 0 to 255 and rounds half up; the gradient is that of the clamp alone."""
    clamped = levels.clamp(0, MAX_LEVEL)
    return clamped + ((clamped + 0.5).floor() - clamped).detach()
