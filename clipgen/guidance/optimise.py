"""Guidance of the start: gradient ascent on the noise that a model of one to four steps begins with.

ReNO: Eyring et al. 2024 (arXiv 2406.04312); the noise is held to unit variance by projection and not by a penalty.
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

MOST_STEPS = 4  # gradients through more of them cost too much and say too little
RATE, MOMENTUM, LONGEST = 5.0, 0.9, 0.1  # of the ascent: step size, Nesterov's momentum, norm of a gradient
PATIENCE = 10  # iterations without gain after which a picture is left as it is
TINY = 1e-12


Loop = Callable[[Callable[..., Iterator[StepOutput]], Tensor], Iterator[StepOutput]]


class Optimise:
    """The loop around the loop: looks for the start noise from which one batch comes out best; for one run.

    `decode` shows the guide what was drawn, latents [B, C, h, w] to pixels, with gradients; a row is a picture.
    """

    def __init__(self, guide: ClipTarget, decode: Decode, image_seeds: Sequence[int], iterations: int) -> None:
        self.guide, self.decode = guide, decode
        self.image_seeds, self.iterations = tuple(image_seeds), iterations
        self._seen: list[Tensor] = []

    def __call__(self, noise: Tensor, run: Loop) -> Iterator[StepOutput]:
        """Yields what each round draws, then the run from the best noise; all of them count as steps.

        `run` is the loop of the batch from any noise [B, C, h, w], each time with the same noise in its steps.
        """
        drawn: list[StepOutput] = []

        def draw(leaf: Tensor) -> Tensor:
            drawn[:] = run(denoise_with_graph, leaf)
            return drawn[-1].latents

        best = noise
        for ascent in ascend(noise, draw, self._reward, self.iterations):
            best, last, steps = ascent.noise, drawn[-1], self.iterations + len(drawn)
            latents = last.latents.detach()
            yield replace(last, index=ascent.iteration, steps=steps, latents=latents, x0=latents)
        for state in run(denoise, best):
            yield replace(state, index=self.iterations + state.index, steps=self.iterations + state.steps)

    def _reward(self, latents: Tensor) -> Tensor:
        """Returns how well each of the drawn fits its targets, [B]."""
        cosines = self.guide.cosines(soft_clamp(self.decode(latents)))
        self._seen.append(cosines[:, 0].detach())
        return cosines @ self.guide.weights

    def curve(self, image_seed: int) -> tuple[tuple[int, float], ...]:
        """Returns the rounds of a picture, each with the similarity of what was drawn to its prompt."""
        row = self.image_seeds.index(image_seed)
        return tuple((round_, float(similarity[row])) for round_, similarity in enumerate(self._seen))


@dataclass(frozen=True)
class Ascent:
    """Where an ascent stands after `iteration`, counted from 0.

    `rewards` [B] are those of this iteration, `best` [B] the greatest so far, earned by the start noise `noise`
    [B, C, h, w].
    """

    iteration: int
    rewards: Tensor
    best: Tensor
    noise: Tensor


def ascend(
    noise: Tensor,
    draw: Callable[[Tensor], Tensor],
    reward: Callable[[Tensor], Tensor],
    iterations: int,
    patience: int = PATIENCE,
) -> Iterator[Ascent]:
    """Yields the ascent of each row's reward [B] after each draw from its noise; closing the iterator stops it.

    `noise` [B, C, h, w], h w > 1, has unit variance; it is the first one drawn from. `draw` gives what `reward`
    judges, with gradients, and the same for the same noise. A row depends on nothing but itself: it ends when it has
    not gained for `patience` iterations, the whole when all rows have, at the latest after `iterations`.
    """
    z = best_noise = noise.detach()
    velocity = torch.zeros_like(z)
    best, stale = torch.full((len(z),), -torch.inf, device=z.device), torch.zeros(len(z), device=z.device)
    for iteration in range(iterations):
        rewards, gradient = _climb(z, draw, reward)
        gained = (rewards > best) & rewards.isfinite() & (stale < patience)
        best, best_noise = torch.where(gained, rewards, best), torch.where(_as_rows(gained), z, best_noise)
        stale = torch.where(gained, torch.zeros_like(stale), stale + 1)
        yield Ascent(iteration, rewards, best, best_noise)
        if (stale >= patience).all():
            return
        gradient = clipped(gradient, LONGEST)
        velocity = MOMENTUM * velocity + gradient
        z = normalised(z + RATE * (gradient + MOMENTUM * velocity))


def _climb(z: Tensor, draw: Callable[[Tensor], Tensor], reward: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the rewards [B] of what is drawn from z, and the way up [B, C, h, w], 0 where it is not finite."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        rewards = reward(draw(leaf))
        (gradient,) = torch.autograd.grad(rewards.sum(), leaf)
    finite = gradient.isfinite().flatten(1).all(dim=1)
    return rewards.detach().to(z), torch.where(_as_rows(finite), gradient, torch.zeros_like(gradient))


def clipped(gradient: Tensor, longest: float) -> Tensor:
    """Returns gradients [B, C, h, w], each row's norm at most `longest`."""
    norms = gradient.flatten(1).norm(dim=1)
    return gradient * _as_rows((longest / (norms + TINY)).clamp(max=1.0))


def normalised(noise: Tensor) -> Tensor:
    """Returns noise [B, C, h, w] whose every channel has mean 0 and variance 1."""
    centred = noise - noise.mean(dim=(2, 3), keepdim=True)
    return centred / (centred.square().mean(dim=(2, 3), keepdim=True).sqrt() + TINY)


def _as_rows(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def check_few_steps(steps: int, model: str) -> None:
    """Raises SettingsError for a run of more steps than gradients can go through."""
    if steps > MOST_STEPS:
        raise SettingsError(
            f"Guidance 'optimise' needs a model of 1-{MOST_STEPS} steps; '{model[:60]}' runs {steps}. Use pick.",
            field="guidance",
        )
