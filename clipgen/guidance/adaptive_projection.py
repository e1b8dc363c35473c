"""Classifier-free guidance without oversaturation: what would only raise contrast is left out of its step.

APG: Sadat et al. 2024 (arXiv 2410.02416, algorithm 1), with nothing of the parallel part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clipgen.sampling.loop import StepInput
from clipgen.sampling.prediction import inject

LONGEST, MOMENTUM = 15.0, -0.5  # of the difference of two x0: norm of a picture's at most, weight of those before
TINY = 1e-12


class AdaptiveProjection:
    """A Mix of the two halves of classifier-free guidance at a `scale`; begins anew with each run's first step."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self._before: dict[int, Tensor] = {}

    def __call__(self, step_input: StepInput, cond: Tensor, uncond: Tensor) -> Tensor:
        """Returns the guided output [B, C, h, w]: x0 of the prompt plus (scale - 1) times the difference, tamed."""
        x0 = step_input.x0(cond)
        difference = self._with_momentum(step_input, x0 - step_input.x0(uncond))
        added = (self.scale - 1) * across(shortened(difference, LONGEST), x0)
        return inject(cond, added, step_input.level, step_input.prediction_type)

    def _with_momentum(self, step_input: StepInput, difference: Tensor) -> Tensor:
        """Returns the difference with a part of those of earlier steps, row by row wherever a row has gone."""
        rows = range(len(difference)) if step_input.rows is None else step_input.rows
        if step_input.index > 0:
            known = [self._before.get(row, torch.zeros_like(difference[0])) for row in rows]
            difference = difference + MOMENTUM * torch.stack(known)
        self._before = {row: difference[place].detach() for place, row in enumerate(rows)}
        return difference


def shortened(difference: Tensor, longest: float) -> Tensor:
    """Returns differences [B, C, h, w], each picture's norm at most `longest`."""
    norms = difference.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
    return difference * (longest / (norms + TINY)).clamp(max=1.0)


def across(difference: Tensor, x0: Tensor) -> Tensor:
    """Returns differences without their part along x0, per picture."""
    along = (difference * x0).sum(dim=(1, 2, 3), keepdim=True)
    return difference - along / (x0.square().sum(dim=(1, 2, 3), keepdim=True) + TINY) * x0
