"""Adaptive projected guidance (APG): classifier-free guidance without the part that oversaturates.

Sadat et al. 2024 (arXiv 2410.02416, algorithm 1), with the parallel component left out entirely (eta = 0).
"""

from __future__ import annotations

import torch
from torch import Tensor

from clipgen.sampling.loop import StepInput
from clipgen.sampling.prediction import inject

MAX_NORM = 15.0  # of the difference of the conditional and the unconditional x0, per row
MOMENTUM = -0.5  # weight of the difference of the step before
EPS = 1e-12


class AdaptiveProjection:
    """Combines the two halves of classifier-free guidance at guidance scale `scale`; keeps its momentum for one run."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self._last_difference: dict[int, Tensor] = {}  # by row of the initial batch

    def __call__(self, step_input: StepInput, cond: Tensor, uncond: Tensor) -> Tensor:
        """Returns the guided model output [B, C, h, w] of the conditional and the unconditional one.

        In terms of x0: x0_cond + (scale - 1) * projection(difference), where difference = x0_cond - x0_uncond.
        """
        x0 = step_input.x0(cond)
        difference = self._add_momentum(step_input, x0 - step_input.x0(uncond))
        correction = (self.scale - 1) * orthogonal_part(limit_norm(difference, MAX_NORM), x0)
        return inject(cond, correction, step_input.level, step_input.prediction_type)

    def _add_momentum(self, step_input: StepInput, difference: Tensor) -> Tensor:
        """Returns the difference plus MOMENTUM times that of the step before, matched by row of the initial batch."""
        rows = range(len(difference)) if step_input.rows is None else step_input.rows
        if step_input.index > 0:
            zeros = torch.zeros_like(difference[0])
            difference = difference + MOMENTUM * torch.stack([self._last_difference.get(row, zeros) for row in rows])
        self._last_difference = {row: difference[position].detach() for position, row in enumerate(rows)}
        return difference


def limit_norm(difference: Tensor, max_norm: float) -> Tensor:
    """Returns the differences [B, C, h, w] with the norm of each row limited."""
    norms = difference.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
    return difference * (max_norm / (norms + EPS)).clamp(max=1.0)


def orthogonal_part(difference: Tensor, x0: Tensor) -> Tensor:
    """Returns the component of the differences that is orthogonal to x0, per row; the rest would only add contrast."""
    along = (difference * x0).sum(dim=(1, 2, 3), keepdim=True)
    return difference - along / (x0.square().sum(dim=(1, 2, 3), keepdim=True) + EPS) * x0
