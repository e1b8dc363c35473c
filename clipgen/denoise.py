"""The loop: from noise to latents, one scheduler step per yield."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clipgen.errors import SettingsError
from clipgen.prediction import (
    NO_SAMPLE_PREDICTION,
    VARIANCE_PRESERVING,
    NoiseLevel,
    check_prediction,
    corrects_after_step,
    inject,
    level_after,
    noise_level,
    recover_x0,
    shift_after_step,
)
from clipgen.schedulers import SCHEDULERS


@dataclass(frozen=True)
class Point:
    """Where the loop stands before a step: `latents` x_t [B, C, h, w] in float32 = alpha x0 + sigma noise.

    `scaled` gives latents as the network takes them; `prediction` is what it predicts (prediction.PREDICTIONS).
    """

    latents: Tensor
    scaled: Callable[[Tensor], Tensor]
    timestep: Tensor
    level: NoiseLevel
    prediction: str
    index: int
    steps: int

    @property
    def progress(self) -> float:
        """Part of the run that is done, 0 at the first step, below 1 at the last."""
        return self.index / self.steps

    def x0(self, output: Tensor, latents: Tensor | None = None) -> Tensor:
        """Returns the x0 [B, C, h, w] that an output implies, at other latents than its own if they are given."""
        return recover_x0(output, self.latents if latents is None else latents, self.level, self.prediction)


@dataclass(frozen=True)
class Prediction:
    """What the network says at a point: the guided `output`, its conditional and unconditional halves.

    All are [B, C, h, w]; `uncond` is None where it was not run. `cond` was computed at `latents`, and carries a graph
    to them if they require a gradient. `correction` is what guidance adds to x0, None for nothing.
    """

    output: Tensor
    cond: Tensor
    uncond: Tensor | None
    latents: Tensor
    correction: Tensor | None = None


@dataclass(frozen=True)
class Moment:
    """All that a guidance method sees of a step, never a scheduler or a family: x_t = alpha x0 + sigma noise.

    `x0` is guided, `x0_cond` carries a graph to `latents` where a method asked for it, `x0_uncond` is None for
    distilled guidance. Tensors [B, C, h, w] in float32; `image_seeds` holds a row's own seed.
    """

    latents: Tensor
    x0: Tensor
    x0_cond: Tensor
    x0_uncond: Tensor | None
    alpha: float
    sigma: float
    progress: float
    step: int
    steps: int
    image_seeds: tuple[int, ...]


PredictNoise = Callable[[Point], Prediction]
Correction = Callable[[Moment], Tensor | None]  # D, of x0's shape, to be added to x0; None = nothing to do
Selection = Callable[[Moment], Tensor | None]  # the rows that live on, [B'] long; None = all of them


def moment_of(point: Point, told: Prediction, image_seeds: Sequence[int]) -> Moment:
    """Returns a step's moment as guidance methods see it; only its x0_cond can carry a graph."""
    with torch.set_grad_enabled(told.latents.requires_grad):
        x0_cond = point.x0(told.cond, told.latents)
    return Moment(
        latents=told.latents,
        x0=point.x0(told.output.detach()),
        x0_cond=x0_cond,
        x0_uncond=None if told.uncond is None else point.x0(told.uncond),
        alpha=point.level.alpha,
        sigma=point.level.sigma,
        progress=point.progress,
        step=point.index,
        steps=point.steps,
        image_seeds=tuple(image_seeds),
    )


@dataclass(frozen=True)
class State:
    """A batch after one step: `latents` and the `x0` that the step was taken towards, both [B, C, h, w] in float32."""

    index: int
    steps: int
    timestep: float
    latents: Tensor
    x0: Tensor


def make_scheduler(name: str, config: Mapping[str, Any], steps: int, device: torch.device) -> Any:
    """Returns a fresh scheduler of that name on a model's own scheduler config, set to so many steps.

    Raises SettingsError where the scheduler cannot work with what the model predicts.
    """
    import diffusers

    spec = SCHEDULERS[name]
    if spec.class_name in NO_SAMPLE_PREDICTION and check_prediction(config) == "sample":
        raise SettingsError(
            f"Scheduler '{name}' cannot run a model that predicts the sample. Use ddim.", field="scheduler"
        )
    scheduler = getattr(diffusers, spec.class_name).from_config({**config, **spec.options})
    scheduler.set_timesteps(steps, device=device)
    if spec.class_name not in VARIANCE_PRESERVING:
        scheduler.set_begin_index(0)  # its own search by timestep starts too late where rounding makes two alike
    return scheduler


def generators_of(seeds: Sequence[int]) -> list[torch.Generator]:
    """Returns one CPU generator per picture, so that a picture's noise depends on its own seed alone."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def start_noise(generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
    """Draws the start noise [B, C, h, w], of unit variance, on the CPU in float32, whatever the model runs in."""
    return torch.cat([torch.randn(1, *shape, generator=generator) for generator in generators])


@torch.no_grad()
def denoise(
    predict: PredictNoise, scheduler: Any, noise: Tensor, generators: Sequence[torch.Generator], eta: float = 0.0
) -> Iterator[State]:
    """Yields the batch after each step of the scheduler; closing the iterator stops it.

    `noise` [B, C, h, w] has unit variance; `generators`, one a picture, give ancestral noise; `eta` is for schedulers
    that know it (DDIM, Song et al. 2020, arXiv 2010.02502, equation 16).
    """
    options = _step_options(scheduler, list(generators), eta)
    prediction = check_prediction({**scheduler.config, "_class_name": type(scheduler).__name__})
    latents = noise.to(scheduler.timesteps.device) * scheduler.init_noise_sigma
    steps = len(scheduler.timesteps)
    for index, timestep in enumerate(scheduler.timesteps):
        level = noise_level(scheduler, timestep)
        point = Point(
            latents, partial(scheduler.scale_model_input, timestep=timestep), timestep, level, prediction, index, steps
        )
        latents, x0 = take_step(scheduler, point, predict(point), options)
        yield State(index, steps, float(timestep), latents, x0)


def take_step(scheduler: Any, point: Point, told: Prediction, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Takes one step of the scheduler with the correction of x0 in it; returns the next latents and the x0 aimed at.

    Injected into the output, except for the solvers whose history would amplify it: those are corrected afterwards.
    """
    output, correction = told.output, told.correction
    x0 = point.x0(output)
    if correction is None:
        return scheduler.step(output, point.timestep, point.latents, **options, return_dict=False)[0], x0
    if not corrects_after_step(scheduler):
        output = inject(output, correction, point.level, point.prediction)
        return scheduler.step(output, point.timestep, point.latents, **options, return_dict=False)[0], x0 + correction
    latents = scheduler.step(output, point.timestep, point.latents, **options, return_dict=False)[0]
    following = level_after(scheduler, point.index)
    return latents + shift_after_step(correction, point.level, following), x0 + correction


def _step_options(scheduler: Any, generators: list[torch.Generator], eta: float) -> dict[str, Any]:
    """Returns of generator and eta what this scheduler's step takes, as diffusers' pipelines do."""
    known = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in {"generator": generators, "eta": eta}.items() if name in known}
