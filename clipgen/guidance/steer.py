"""Guidance by a crowd: a few particles are drawn for one picture, the promising ones multiply and the others end.

Feynman-Kac steering: Singhal et al. 2025 (arXiv 2501.06848).
"""

from __future__ import annotations

import hashlib
from math import ceil

import torch
from torch import Tensor

from clipgen.errors import SettingsError
from clipgen.guidance.targets import Reward
from clipgen.sampling.loop import StepState
from clipgen.sampling.schedulers import SCHEDULERS, scheduler_for

WEIGHED_AT = (0.2, 0.4, 0.6, 0.8)  # parts of the run
STRENGTH = 2.0  # weight of a reward that lies one deviation above the others, in e-folds
TAKES_ETA = ("DDIMScheduler", "FlowMatchEulerDiscreteScheduler")  # they draw noise where eta is above 0


class Steer:
    """A Selection that resamples the particles of one picture by how much their rewards have grown; for one run.

    `reward` judges x0 and `image_seed` seeds the resampling. The particles have noise of their own: candidate_seeds.
    """

    def __init__(self, reward: Reward, image_seed: int, strength: float = STRENGTH) -> None:
        self.reward, self.image_seed, self.strength = reward, image_seed, strength
        self._seen = torch.empty(0, dtype=torch.float64)  # every reward so far
        self._before = self._log_weights = torch.zeros(1, dtype=torch.float64)

    def __call__(self, moment: StepState) -> Tensor | None:
        """Returns the rows that go on, as many as there are, None where all do; see `weighing_steps`.

        A weight grows by exp(strength * the reward's growth since the last weighing), and begins anew after each
        resampling. A particle whose reward is not finite ends at the next one.
        """
        if moment.index not in weighing_steps(moment.steps):
            return None
        rewards = self.reward(moment.x0).detach().double().cpu()
        self._seen = torch.cat([self._seen, rewards[rewards.isfinite()]])
        standing = standardised(rewards, self._seen)
        grown = self._log_weights + self.strength * (standing - self._before)
        self._log_weights, self._before = grown, standing.nan_to_num(neginf=0.0)
        weights = grown.softmax(dim=0)
        if not weights.isfinite().all() or effective_size(weights) >= len(weights) / 2:
            return None
        rows = systematic(weights, _generator(self.image_seed, moment.index))
        self._log_weights, self._before = torch.zeros_like(grown), self._before[rows]
        return rows


def weighing_steps(steps: int) -> tuple[int, ...]:
    """Returns the steps, counted from 0, after which particles are weighed: never the last, when copies cannot part."""
    return tuple(sorted({step for part in WEIGHED_AT if (step := ceil(part * steps - 1e-9)) < steps - 1}))


def standardised(rewards: Tensor, seen: Tensor) -> Tensor:
    """Returns rewards [k] in deviations from the mean of all finite ones seen; what is not finite is -inf."""
    spread = seen.std(correction=0) if len(seen) else torch.zeros(())
    standing = (rewards - seen.mean()) / spread if spread > 0 else torch.zeros_like(rewards)
    return torch.where(rewards.isfinite(), standing, -torch.inf)


def effective_size(weights: Tensor) -> float:
    """Returns how many equal particles weights [k], which sum to 1, are worth: 1 to k."""
    return 1 / float(weights.square().sum())


def systematic(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draws k rows [k], sorted, by weights [k] that sum to 1: row i comes floor or ceil of k times its weight.

    Systematic resampling takes one random number for all: Carpenter et al. 1999, IEE Proc. Radar 146(1).
    """
    count, reached = len(weights), weights.cumsum(dim=0)
    start = torch.rand(1, generator=generator, dtype=torch.float64)
    points = (start + torch.arange(count)) / count
    return torch.searchsorted(reached / reached[-1], points, right=True)


def _generator(image_seed: int, step: int) -> torch.Generator:
    """Returns the CPU generator of one picture's resampling after one step."""
    digest = hashlib.blake2b(f"{image_seed}/steer/{step}".encode(), digest_size=7).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "big"))


def draws_noise(scheduler: str, prediction: str, eta: float) -> bool:
    """Tells whether a scheduler draws noise at each step for a model of that prediction type."""
    spec = scheduler_for(scheduler, prediction)
    return spec.stochastic or (eta > 0 and spec.class_name in TAKES_ETA)


def check_draws_noise(scheduler: str, prediction: str, eta: float) -> None:
    """Raises SettingsError, naming what works, for a scheduler that draws no noise: copies would never part."""
    if draws_noise(scheduler, prediction, eta):
        return
    able = [spec for spec in SCHEDULERS.values() if spec.runs(prediction) and spec.schedule_type is None]
    works = [spec.name for spec in able if spec.stochastic]
    with_eta = scheduler_for("ddim", prediction).name
    raise SettingsError(
        f"Guidance 'steer' needs a scheduler that draws noise, and '{scheduler}' draws none. "
        f"Works: {', '.join(works)}, and {with_eta} with eta above 0.",
        field="scheduler",
        allowed=[*works, with_eta],
    )
