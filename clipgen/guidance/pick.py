"""Guidance by choice: many candidates start, CLIP looks at what they head for, and again and again half of them go on.

Successive halving (Karnin et al. 2013) of best-of-N: most of the price of N pictures is never paid.
"""

from __future__ import annotations

import hashlib
from math import ceil

import torch
from torch import Tensor

from clipgen.guidance.targets import Reward
from clipgen.sampling.loop import StepState

HALVED_AT = {2: (0.4,), 4: (0.2, 0.4), 8: (0.2, 0.4, 0.6), 16: (0.1, 0.2, 0.3, 0.4)}  # parts of the run
FEWEST_STEPS = 8  # below, x0 says too little until the end, and no candidate is dropped before


def candidate_seeds(image_seed: int, count: int) -> tuple[int, ...]:
    """Returns the seeds of a picture's candidates: its own, then others below 2^32 that follow from it."""

    def drawn(number: int) -> int:
        digest = hashlib.blake2b(f"{image_seed}/candidate/{number}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % 2**32

    return (image_seed, *map(drawn, range(1, count)))


class Pick:
    """A Selection that keeps the better half of one picture's candidates at fixed parts of the run."""

    def __init__(self, reward: Reward, candidates: int) -> None:
        self.reward, self.points = reward, HALVED_AT[candidates]

    def __call__(self, moment: StepState) -> Tensor | None:
        """Returns the rows of the better half in their order, None at steps after which nobody is dropped."""
        if moment.steps < FEWEST_STEPS or moment.index not in halving_steps(self.points, moment.steps):
            return None
        return better_half(self.reward(moment.x0))


def halving_steps(points: tuple[float, ...], steps: int) -> tuple[int, ...]:
    """Returns the steps, counted from 0, that begin where parts of a run are done."""
    return tuple(ceil(point * steps - 1e-9) for point in points)


def better_half(rewards: Tensor) -> Tensor:
    """Returns the rows of the greater half of rewards [B], in their order; what is not finite goes first."""
    known = torch.nan_to_num(rewards, nan=-torch.inf, posinf=-torch.inf)
    ranked = known.argsort(descending=True, stable=True)
    return ranked[: max(1, len(rewards) // 2)].sort().values


def winner(rewards: Tensor) -> int:
    """Returns the row of the greatest of rewards [B], the first of equal ones; what is not finite never wins."""
    return int(torch.nan_to_num(rewards, nan=-torch.inf, posinf=-torch.inf).argmax())


def rows_alive(candidates: int, steps: int) -> list[int]:
    """Returns how many candidates take each step."""
    halved = halving_steps(HALVED_AT[candidates], steps) if steps >= FEWEST_STEPS else ()
    return [candidates >> sum(earlier < step for earlier in halved) for step in range(steps)]


def price(candidates: int, steps: int) -> float:
    """Returns how many pictures' steps a choice among candidates takes."""
    return sum(rows_alive(candidates, steps)) / steps
