"""Guidance by resampling: several particles run per image; those with promising rewards multiply, the others end.

Feynman-Kac steering: Singhal et al. 2025 (arXiv 2501.06848).
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from clipgen.errors import SettingsError
from clipgen.guidance.targets import Reward
from clipgen.hashing import seed_from_text
from clipgen.sampling.loop import StepState
from clipgen.sampling.schedulers import SCHEDULERS, scheduler_for

RESAMPLING_PROGRESS = (0.2, 0.4, 0.6, 0.8)
STRENGTH = 2.0  # lambda: a reward one standard deviation higher is worth a factor e^2 in weight
WITH_ETA = ("DDIMScheduler", "FlowMatchEulerDiscreteScheduler")  # they draw noise in each step if eta is above 0


class Steer:
    """A Selection that resamples the particles of one image by the growth of their rewards; one object per run.

    `reward` scores x0. `image_seed` seeds the resampling; the particles' own noise comes from `pick.candidate_seeds`.
    """

    def __init__(self, reward: Reward, image_seed: int, strength: float = STRENGTH) -> None:
        self.reward, self.image_seed, self.strength = reward, image_seed, strength
        self._all_rewards = torch.empty(0, dtype=torch.float64)  # every finite reward of the run, for their z-scores
        self._last_scores = self._log_weights = torch.zeros(1, dtype=torch.float64)  # [k] after the first resampling

    def __call__(self, state: StepState) -> Tensor | None:
        """Returns the indices [k] of the k particles to continue with, in order; None if all of them continue.

        A particle whose reward is not finite gets weight 0.
        """
        if state.index not in resampling_steps(state.steps):
            return None
        # 1. Rewards as z-scores, so that one strength fits every prompt.
        rewards = self.reward(state.x0).detach().double().cpu()  # [k]
        self._all_rewards = torch.cat([self._all_rewards, rewards[rewards.isfinite()]])
        scores = z_scores(rewards, self._all_rewards)

        # 2. log w += strength (score - score before): only growth counts, not a lead that a particle already had.
        self._log_weights = self._log_weights + self.strength * (scores - self._last_scores)
        self._last_scores = scores.nan_to_num(neginf=0.0)
        weights = self._log_weights.softmax(dim=0)

        # 3. Resample only if the weights have become uneven; then they start again at 1.
        if not weights.isfinite().all() or effective_sample_size(weights) >= len(weights) / 2:
            return None
        rows = systematic_resampling(weights, _generator(self.image_seed, state.index))
        self._log_weights, self._last_scores = torch.zeros_like(weights), self._last_scores[rows]
        return rows


def resampling_steps(steps: int) -> tuple[int, ...]:
    """Returns the indices of the steps after which particles are resampled, not the last: copies would stay equal."""
    indices = {ceil(progress * steps - 1e-9) for progress in RESAMPLING_PROGRESS}
    return tuple(sorted(index for index in indices if index < steps - 1))


def z_scores(rewards: Tensor, all_rewards: Tensor) -> Tensor:
    """Returns rewards [k] in standard deviations from the mean of `all_rewards`; -inf for those that are not finite."""
    deviation = all_rewards.std(correction=0) if len(all_rewards) else torch.zeros(())
    scores = (rewards - all_rewards.mean()) / deviation if deviation > 0 else torch.zeros_like(rewards)
    return torch.where(rewards.isfinite(), scores, -torch.inf)


def effective_sample_size(weights: Tensor) -> float:
    """Returns 1 / sum w^2 of weights [k] that sum to 1: k if all are equal, 1 if one particle has all the weight."""
    return 1 / float(weights.square().sum())


def systematic_resampling(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draws k sorted indices by weights [k] that sum to 1; index i comes floor(k w_i) or ceil(k w_i) times.

    One random number shifts k equidistant points: Carpenter et al. 1999, IEE Proc. Radar 146(1).
    """
    count, cumulative = len(weights), weights.cumsum(dim=0)
    shift = torch.rand(1, generator=generator, dtype=torch.float64)
    points = (shift + torch.arange(count)) / count
    return torch.searchsorted(cumulative / cumulative[-1], points, right=True)


def _generator(image_seed: int, index: int) -> torch.Generator:
    """Returns the CPU generator for the resampling of one image after one step."""
    return torch.Generator("cpu").manual_seed(seed_from_text(f"{image_seed}/steer/{index}"))


def is_stochastic(scheduler: str, prediction_type: str, eta: float) -> bool:
    """Tells whether a scheduler draws noise in each step for a model of this prediction type."""
    spec = scheduler_for(scheduler, prediction_type)
    return spec.stochastic or (eta > 0 and spec.class_name in WITH_ETA)


def check_stochastic(scheduler: str, prediction_type: str, eta: float) -> None:
    """Raises SettingsError for a scheduler that draws no noise: copies of a particle would stay equal."""
    if is_stochastic(scheduler, prediction_type, eta):
        return
    specs = [spec for spec in SCHEDULERS.values() if spec.runs(prediction_type) and spec.schedule_type is None]
    stochastic = [spec.name for spec in specs if spec.stochastic]
    with_eta = scheduler_for("ddim", prediction_type).name
    raise SettingsError(
        f"Guidance 'steer' needs a scheduler that draws noise, and '{scheduler}' draws none. "
        f"Works: {', '.join(stochastic)}, and {with_eta} with eta above 0.",
        field="scheduler",
        allowed=[*stochastic, with_eta],
    )
