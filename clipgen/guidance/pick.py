"""Guidance by selection: several candidates start per image, and CLIP repeatedly keeps the better half of them.

Best of N with successive halving (Karnin et al. 2013, ICML): N candidates for much less than the price of N images.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from clipgen.guidance.targets import Reward
from clipgen.hashing import seed_from_text
from clipgen.sampling.loop import StepState

HALVING_PROGRESS = {2: (0.4,), 4: (0.2, 0.4), 8: (0.2, 0.4, 0.6), 16: (0.1, 0.2, 0.3, 0.4)}  # by number of candidates
MIN_STEPS_TO_HALVE = 8  # in shorter runs x0 says too little before the end: all candidates are finished, then ranked


def candidate_seeds(image_seed: int, count: int) -> tuple[int, ...]:
    """Returns the seeds of an image's candidates: its own seed first, then seeds below 2^32 derived from it."""

    def derived(number: int) -> int:
        return seed_from_text(f"{image_seed}/candidate/{number}", 8) % 2**32

    return (image_seed, *map(derived, range(1, count)))


class Pick:
    """A Selection that keeps the better half of the candidates of one image at fixed points of the run."""

    def __init__(self, reward: Reward, candidates: int) -> None:
        self.reward, self.halving_progress = reward, HALVING_PROGRESS[candidates]

    def __call__(self, state: StepState) -> Tensor | None:
        """Returns the indices of the better half by the reward of x0, in their order; None at the other steps."""
        is_short = state.steps < MIN_STEPS_TO_HALVE
        if is_short or state.index not in halving_steps(self.halving_progress, state.steps):
            return None
        return better_half(self.reward(state.x0))


def halving_steps(halving_progress: tuple[float, ...], steps: int) -> tuple[int, ...]:
    """Returns the indices of the first steps at which these fractions of the run are done."""
    return tuple(ceil(progress * steps - 1e-9) for progress in halving_progress)  # 0.2 * 15 is a little above 3


def better_half(rewards: Tensor) -> Tensor:
    """Returns the indices of the greater half of rewards [B], in their order; rewards that are not finite lose."""
    finite = torch.nan_to_num(rewards, nan=-torch.inf, posinf=-torch.inf)
    ranking = finite.argsort(descending=True, stable=True)
    return ranking[: max(1, len(rewards) // 2)].sort().values


def best_row(rewards: Tensor) -> int:
    """Returns the index of the greatest of rewards [B], the first of equal ones; rewards that are not finite lose."""
    return int(torch.nan_to_num(rewards, nan=-torch.inf, posinf=-torch.inf).argmax())


def candidates_per_step(candidates: int, steps: int) -> list[int]:
    """Returns how many candidates run in each step."""
    halvings = halving_steps(HALVING_PROGRESS[candidates], steps) if steps >= MIN_STEPS_TO_HALVE else ()
    return [candidates >> sum(halving < index for halving in halvings) for index in range(steps)]
