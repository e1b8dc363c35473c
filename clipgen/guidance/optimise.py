"""Guidance of the initial noise: gradient ascent of the reward, for models of one to four steps.

ReNO: Eyring et al. 2024 (arXiv 2406.04312). Here the noise keeps unit variance by projection, not by a penalty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clipgen.errors import SettingsError
from clipgen.guidance.clip_gradient import soft_clamp
from clipgen.guidance.targets import ClipTarget, Decode
from clipgen.sampling.loop import StepOutput, denoise, denoise_with_graph

MAX_STEPS = 4  # back-propagation through more steps costs too much memory, and its gradients say too little
LEARNING_RATE, MOMENTUM, MAX_GRADIENT_NORM = 5.0, 0.9, 0.1
PATIENCE = 10  # an image stops after this many iterations without gain
EPS = 1e-12

# (denoise or denoise_with_graph, initial noise) -> the outputs of all steps of a batch
RunLoop = Callable[[Callable[..., Iterator[StepOutput]], Tensor], Iterator[StepOutput]]


class NoiseOptimiser:
    """Finds initial noise whose images have the highest reward, then runs the loop from it; one object per run.

    `decode` takes the final latents [B, C, h, w] to pixels, differentiably. A row is an image.
    """

    def __init__(self, target: ClipTarget, decode: Decode, image_seeds: Sequence[int], iterations: int) -> None:
        self.target, self.decode = target, decode
        self.image_seeds, self.iterations = tuple(image_seeds), iterations
        self._similarities: list[Tensor] = []  # [B] per iteration

    def __call__(self, noise: Tensor, run_loop: RunLoop) -> Iterator[StepOutput]:
        """Yields the result of each iteration as one step, then the steps of the run from the best noise.

        `run_loop` runs the loop from initial noise [B, C, h, w], each time with the same noise in its steps.
        """
        outputs: list[StepOutput] = []

        def generate(noise: Tensor) -> Tensor:
            outputs[:] = run_loop(denoise_with_graph, noise)
            return outputs[-1].latents

        best_noise = noise
        for ascent in ascend(noise, generate, self._reward, self.iterations):
            best_noise, last = ascent.best_noise, outputs[-1]
            latents = last.latents.detach()
            steps = self.iterations + len(outputs)
            yield replace(last, index=ascent.iteration, steps=steps, latents=latents, x0=latents)
        for output in run_loop(denoise, best_noise):
            yield replace(output, index=self.iterations + output.index, steps=self.iterations + output.steps)

    def _reward(self, latents: Tensor) -> Tensor:
        """Returns the weighted cosine similarity of each decoded image to its targets, [B]."""
        cosines = self.target.cosines(soft_clamp(self.decode(latents)))  # [B, T]
        self._similarities.append(cosines[:, 0].detach())
        return cosines @ self.target.weights

    def curve(self, image_seed: int) -> tuple[tuple[int, float], ...]:
        """Returns (iteration, cosine similarity to the prompt) of each iteration of an image."""
        row = self.image_seeds.index(image_seed)
        return tuple((iteration, float(similarity[row])) for iteration, similarity in enumerate(self._similarities))


@dataclass(frozen=True)
class Ascent:
    """The state of a gradient ascent after an iteration, counted from 0.

    `rewards` [B] are those of this iteration, `best_rewards` [B] the highest so far, reached from the initial noise
    `best_noise` [B, C, h, w].
    """

    iteration: int
    rewards: Tensor
    best_rewards: Tensor
    best_noise: Tensor


def ascend(
    noise: Tensor,
    generate: Callable[[Tensor], Tensor],
    reward: Callable[[Tensor], Tensor],
    iterations: int,
    patience: int = PATIENCE,
) -> Iterator[Ascent]:
    """Yields the state of the ascent after each iteration; closing the iterator stops it.

    Args:
        noise: where the ascent starts, [B, C, h, w] of unit variance, h w > 1.
        generate: initial noise -> what `reward` scores, differentiable and deterministic.
        reward: a score per row [B], differentiable.
        iterations: the most there are.
        patience: a row stops when it has not gained for this many iterations, the ascent when all rows have stopped.
    """
    z = best_noise = noise.detach()
    velocity = torch.zeros_like(z)
    best_rewards = torch.full((len(z),), -torch.inf, device=z.device)
    stale = torch.zeros(len(z), device=z.device)  # iterations without gain, per row
    for iteration in range(iterations):
        # 1. Generate from z, and keep the best noise of each row.
        rewards, gradient = _reward_gradient(z, generate, reward)
        gained = (rewards > best_rewards) & rewards.isfinite() & (stale < patience)
        best_rewards = torch.where(gained, rewards, best_rewards)
        best_noise = torch.where(_per_row(gained), z, best_noise)
        stale = torch.where(gained, torch.zeros_like(stale), stale + 1)
        yield Ascent(iteration, rewards, best_rewards, best_noise)
        if (stale >= patience).all():
            return
        # 2. A step of Nesterov's momentum, projected back to noise of unit variance.
        gradient = clip_gradient_norm(gradient, MAX_GRADIENT_NORM)
        velocity = MOMENTUM * velocity + gradient
        z = normalise_channels(z + LEARNING_RATE * (gradient + MOMENTUM * velocity))


def _reward_gradient(
    z: Tensor, generate: Callable[[Tensor], Tensor], reward: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Returns the rewards [B] of what z generates and their gradient [B, C, h, w], 0 in rows that are not finite."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        rewards = reward(generate(leaf))
        (gradient,) = torch.autograd.grad(rewards.sum(), leaf)
    finite = gradient.isfinite().flatten(1).all(dim=1)
    return rewards.detach().to(z), torch.where(_per_row(finite), gradient, torch.zeros_like(gradient))


def clip_gradient_norm(gradient: Tensor, max_norm: float) -> Tensor:
    """Returns gradients [B, C, h, w] with the norm of each row limited."""
    norms = gradient.flatten(1).norm(dim=1)
    return gradient * _per_row((max_norm / (norms + EPS)).clamp(max=1.0))


def normalise_channels(noise: Tensor) -> Tensor:
    """Returns noise [B, C, h, w] with mean 0 and variance 1 in each channel."""
    centred = noise - noise.mean(dim=(2, 3), keepdim=True)
    return centred / (centred.square().mean(dim=(2, 3), keepdim=True).sqrt() + EPS)


def _per_row(values: Tensor) -> Tensor:
    """Returns values [B] as [B, 1, 1, 1]."""
    return values[:, None, None, None]


def check_few_steps(steps: int, model: str) -> None:
    """Raises SettingsError for a run of more than MAX_STEPS steps."""
    if steps > MAX_STEPS:
        raise SettingsError(
            f"Guidance 'optimise' needs a model of 1-{MAX_STEPS} steps; '{model[:60]}' runs {steps}. Use pick.",
            field="guidance",
        )
