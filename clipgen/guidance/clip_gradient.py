"""Guidance by CLIP's gradient: each x0 moves towards what CLIP takes for the prompt, as far as a trust region lets it.

He et al. 2023 (MPGD, arXiv 2311.16424); with `through_unet` Chung et al. 2022 (DPS, arXiv 2209.14687).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import hypot

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgen.clip.views import views
from clipgen.guidance.targets import ClipTarget
from clipgen.sampling.loop import Correction, Prediction, PredictNoise, StepInput, StepState, step_state
from clipgen.settings.settings import Note

BURNT_SLOPE = 0.05  # of the soft clamp: pixels out of [0, 1] keep that much of their gradient
UNGUIDED_PART = 0.1  # of x0: the trust region's radius where there is no classifier-free guidance to measure it by
MOST_BROKEN = 0.2  # part of a picture's guided steps that may go unguided before people are told
TINY = 1e-12


class ClipGradient:
    """A Correction by the mean loss of its guides; see `__call__`.

    `decode` takes x0 [B, C, h, w] to pixels [B, 3, H, W], 0 to 1, and keeps gradients. `scale` is the strength in
    units of what classifier-free guidance adds; `start` and `stop` bound the progress, every r-th step is guided, r
    times as strongly. With `through_unet` the gradient goes through the denoiser too, which needs StepStates with a
    graph where `active`. Where the guide `two_key` disagrees, nothing moves.
    """

    def __init__(
        self,
        guides: Sequence[ClipTarget],
        decode: Callable[[Tensor], Tensor],
        *,
        scale: float,
        cutouts: int = 4,
        start: float = 0.1,
        stop: float = 0.7,
        every: int = 1,
        through_unet: bool = False,
        two_key: ClipTarget | None = None,
    ) -> None:
        self.guides = tuple(guides)
        self.decode = decode
        self.scale, self.cutouts = scale, cutouts
        self.start, self.stop, self.every = start, stop, every
        self.through_unet = through_unet
        self.two_key = two_key
        self._seen: list[tuple[int, tuple[int, ...], Tensor]] = []
        self._broken: list[tuple[tuple[int, ...], Tensor]] = []

    def active(self, step: int, steps: int) -> bool:
        """Tells whether a step is guided."""
        if self.scale == 0.0 or not self.start <= step / steps < self.stop:
            return False
        first = next(step for step in range(steps) if step / steps >= self.start)
        return (step - first) % self.every == 0

    def __call__(self, moment: StepState) -> Tensor | None:
        """Returns what to add to x0, [B, C, h, w] in float32, None where no step is guided.

        A row depends on its own picture alone; one whose gradient is not finite is 0, and counted.
        """
        if not self.active(moment.index, moment.steps):
            return None
        gradient, agreed = self._gradient(moment)
        if self.through_unet:
            (gradient,) = torch.autograd.grad(moment.x0_cond, moment.latents, gradient / (rms(gradient) + TINY))
        x0 = moment.x0.detach()
        correction = agreed * trusted(gradient, moment, self.scale * self.every)
        correction = without_growth(correction, agreed * x0)
        finite = torch.isfinite(correction).flatten(1).all(dim=1)
        self._broken.append((moment.image_seeds, ~finite))
        return torch.where(finite[:, None, None, None], correction, torch.zeros_like(correction))

    def _gradient(self, moment: StepState) -> tuple[Tensor, Tensor]:
        """Returns the way down the loss at x0 [B, C, h, w], and 1 or 0 where the second key agrees or not."""
        with torch.enable_grad():
            x0 = moment.x0.detach().float().requires_grad_()
            pixels = soft_clamp(self.decode(x0))
            losses = [self._loss(guide, pixels, moment, self.cutouts) for guide in self.guides]
            loss = torch.stack([loss for loss, _ in losses]).mean()
            self._seen.append((moment.index, moment.image_seeds, losses[0][1]))
            if self.two_key is None:
                return -torch.autograd.grad(loss, x0)[0], torch.ones_like(x0[:, :1])
            second, _ = self._loss(self.two_key, pixels, moment, 1)
            (other,) = torch.autograd.grad(second, x0, retain_graph=True)
        (gradient,) = torch.autograd.grad(loss, x0)
        agreed = F.cosine_similarity(gradient, other, dim=1, eps=TINY) > 0
        return -gradient, agreed[:, None].to(gradient)

    def _loss(self, guide: ClipTarget, pixels: Tensor, moment: StepState, cutouts: int) -> tuple[Tensor, Tensor]:
        """Returns a guide's loss, summed over pictures, and the cosines [B] of overview and first target."""
        seen = views(pixels, moment.image_seeds, moment.index, cutouts, guide.encoder.image_size)
        features = guide.encoder.image_features(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])  # [B, V, D]
        overview = (features[:, 0] * guide.targets[:, 0]).sum(dim=-1).detach()
        return angle_loss(features, guide.targets, guide.weights).sum(), overview

    def curve(self, image_seed: int) -> tuple[tuple[int, float], ...]:
        """Returns the guided steps of a picture, each with the similarity of what CLIP saw to the first target."""
        return tuple(
            (step, float(similarity[seeds.index(image_seed)]))
            for step, seeds, similarity in self._seen
            if image_seed in seeds
        )

    def notes(self) -> list[Note]:
        """Returns a warning if a picture went unguided for more than a fifth of its guided steps."""
        guided, broken = Counter[int](), Counter[int]()
        for seeds, rows in self._broken:
            guided.update(seeds)
            broken.update(seed for seed, bad in zip(seeds, rows.tolist(), strict=True) if bad)
        told = [seed for seed in broken if broken[seed] > MOST_BROKEN * guided[seed]]
        if not told:
            return []
        lost, of = sum(broken[seed] for seed in told), sum(guided[seed] for seed in told)
        which = f"the picture of seed {told[0]}" if len(told) == 1 else f"{len(told)} pictures"
        line = f"CLIP's gradient was not finite in {lost} of {of} guided steps of {which}; those went unguided."
        return [Note("guidance-not-finite", "guidance", line)]


def corrected(predict: PredictNoise, correction: Correction, image_seeds: Sequence[int]) -> PredictNoise:
    """Returns the prediction with a correction of x0 in it, and without a graph."""

    def guided(step_input: StepInput) -> Prediction:
        told = predict(step_input)
        with torch.enable_grad():  # the loop runs without, and x0_cond is to keep the graph that `told.cond` has
            moment = step_state(step_input, told, image_seeds)
        added = correction(moment)
        bare = replace(told, cond=told.cond.detach(), latents=told.latents.detach())
        if added is None:
            return bare
        return replace(bare, correction=added if told.correction is None else told.correction + added)

    return guided


def angle_loss(features: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Returns per picture the mean over views of the weighted half squares of angles: [B].

    features [B, V, D], targets [B or 1, T, D], both unit vectors; weights [T] count by their share of sum |w|.
    """
    chords = (features[:, :, None] - targets[:, None]).norm(dim=-1)  # [B, V, T]
    angles = 2 * torch.asin((chords / 2).clamp(max=1 - 1e-6))
    return (angles.square() / 2 @ (weights / weights.abs().sum())).mean(dim=1)


def soft_clamp(pixels: Tensor) -> Tensor:
    """Returns pixels held to [0, 1], but for a twentieth of what is outside, so that burnt ones keep a gradient."""
    inside = pixels.clamp(0, 1)
    return inside + BURNT_SLOPE * (pixels - inside)


def rms(tensor: Tensor) -> Tensor:
    """Returns each row's root mean square, [B, 1, 1, 1]."""
    return tensor.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


def trusted(gradient: Tensor, moment: StepState, strength: float) -> Tensor:
    """Returns the gradient at the length of a trust region, per picture.

    `strength` times what classifier-free guidance moved x0 by (else a tenth of x0), times the noise's part of x_t: the
    less noise is left, the less is moved.
    """
    alpha, sigma = moment.alpha, moment.sigma
    is_flow = abs(alpha + sigma - 1) < 1e-9  # where another parametrisation has that too, both ways agree
    noise = sigma if is_flow else sigma / hypot(alpha, sigma)
    x0 = moment.x0.detach()
    reference = UNGUIDED_PART * rms(x0) if moment.x0_uncond is None else rms(x0 - moment.x0_uncond)
    return strength * noise * reference * gradient / (rms(gradient) + TINY)


def without_growth(correction: Tensor, x0: Tensor) -> Tensor:
    """Returns the correction without the part along x0 that would only raise its contrast, per picture.

    Sadat et al. 2024 (APG, arXiv 2410.02416), turned from classifier-free guidance to a correction.
    """
    along = (correction * x0).sum(dim=(1, 2, 3), keepdim=True)
    return correction - along.clamp(min=0) / (x0.square().sum(dim=(1, 2, 3), keepdim=True) + TINY) * x0
