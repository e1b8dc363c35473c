"""The loop: from noise to latents, one scheduler step per yield."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clipgen.errors import SettingsError
from clipgen.prediction import NO_SAMPLE_PREDICTION, VARIANCE_PRESERVING, check_prediction, noise_level, recover_x0
from clipgen.schedulers import SCHEDULERS

# (scaled latents [B, C, h, w], timestep, progress 0..1) -> the model's output [B, C, h, w], guided or not
PredictNoise = Callable[[Tensor, Tensor, float], Tensor]


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
    prediction = check_prediction(scheduler.config)
    latents = noise.to(scheduler.timesteps.device) * scheduler.init_noise_sigma
    steps = len(scheduler.timesteps)
    for index, timestep in enumerate(scheduler.timesteps):
        level = noise_level(scheduler, timestep)
        output = predict(scheduler.scale_model_input(latents, timestep), timestep, index / steps)
        x0 = recover_x0(output, latents, level, prediction)
        latents = scheduler.step(output, timestep, latents, **options, return_dict=False)[0]
        yield State(index, steps, float(timestep), latents, x0)


def _step_options(scheduler: Any, generators: list[torch.Generator], eta: float) -> dict[str, Any]:
    """Returns of generator and eta what this scheduler's step takes, as diffusers' pipelines do."""
    known = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in {"generator": generators, "eta": eta}.items() if name in known}
