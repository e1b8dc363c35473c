"""The sampling loop: from noise to latents, one scheduler step per yield.

    x_t = alpha x0 + sigma noise

holds before each step, for every scheduler; alpha and sigma come from `prediction.noise_level`. One step:

    1. predict   the model output under classifier-free guidance, and a correction of x0 if guidance adds one
    2. step      scheduler.step with the corrected model output gives the latents of the next noise level
    3. select    guidance that works with several candidates per image keeps or resamples the rows of the batch

The loop knows no model family and no guidance method: both come in through `predict` and `select`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from clipgen.hashing import seed_from_text
from clipgen.sampling.prediction import (
    FLOW_MATCHING,
    NoiseLevel,
    corrects_after_step,
    inject,
    noise_level,
    read_prediction_type,
    recover_x0,
    shift_after_step,
    step_noise_levels,
)

MAX_ETA = 1 - 1e-6  # at 1, DDIM's first step from zero terminal SNR takes the square root of 0 minus a rounding error


@dataclass(frozen=True)
class StepInput:
    """The input of a denoiser before a step.

    `latents` are x_t [B, C, h, w] in float32; `scale_model_input` scales latents as the network expects them.
    `prediction_type` is one of prediction.PREDICTION_TYPES. `index` counts the steps from 0. `rows` are the indices of
    these latents in the initial batch; None means all of them, in order.
    """

    latents: Tensor
    scale_model_input: Callable[[Tensor], Tensor]
    timestep: Tensor
    level: NoiseLevel
    prediction_type: str
    index: int
    steps: int
    rows: tuple[int, ...] | None = None

    @property
    def progress(self) -> float:
        """The fraction of the steps already taken: 0 at the first step, below 1 at the last."""
        return self.index / self.steps

    def x0(self, model_output: Tensor, latents: Tensor | None = None) -> Tensor:
        """Returns the x0 [B, C, h, w] that a model output implies at `latents`, x_t by default."""
        return recover_x0(model_output, self.latents if latents is None else latents, self.level, self.prediction_type)


@dataclass(frozen=True)
class Prediction:
    """The prediction of a denoiser for one StepInput; all tensors are [B, C, h, w].

    `model_output` is the guided one; `cond` and `uncond` are the outputs it was made of, `uncond` None if that half did
    not run. `cond` was computed at `latents`, and keeps its graph to them if they require a gradient. `correction` is
    what CLIP guidance adds to x0, None for nothing.
    """

    model_output: Tensor
    cond: Tensor
    uncond: Tensor | None
    latents: Tensor
    correction: Tensor | None = None


@dataclass(frozen=True)
class StepState:
    """All that a guidance method knows of a step; it never sees the scheduler or the model family.

    x_t = alpha x0 + sigma noise, tensors [B, C, h, w] in float32. `x0` follows from the guided model output. `x0_cond`
    follows from the conditional one, and keeps its graph to `latents` if the method asked for it. `x0_uncond` is None
    if there is no unconditional output. `image_seeds` holds the seed of each row.
    """

    latents: Tensor
    x0: Tensor
    x0_cond: Tensor
    x0_uncond: Tensor | None
    alpha: float
    sigma: float
    progress: float
    index: int
    steps: int
    image_seeds: tuple[int, ...]


@dataclass(frozen=True)
class StepOutput:
    """A batch after a step: the next `latents` and the `x0` the step aimed at, both [B, C, h, w] in float32.

    `rows` are the indices of these latents in the initial batch: all of them, in order, until a selection changes them.
    """

    index: int
    steps: int
    timestep: float
    latents: Tensor
    x0: Tensor
    rows: tuple[int, ...]


PredictNoise = Callable[[StepInput], Prediction]
Correction = Callable[[StepState], Tensor | None]  # returns D [B, C, h, w] to add to x0; None = no correction
Selection = Callable[[StepState], Tensor | None]  # returns the row indices [B'] to keep; None = all of them


def step_state(step_input: StepInput, prediction: Prediction, image_seeds: Sequence[int]) -> StepState:
    """Returns the state of a step for guidance methods; `image_seeds` are those of the initial batch."""
    with torch.set_grad_enabled(prediction.latents.requires_grad):  # the loop itself runs without gradients
        x0_cond = step_input.x0(prediction.cond, prediction.latents)
    rows = range(len(image_seeds)) if step_input.rows is None else step_input.rows
    return StepState(
        latents=prediction.latents,
        x0=step_input.x0(prediction.model_output.detach()),
        x0_cond=x0_cond,
        x0_uncond=None if prediction.uncond is None else step_input.x0(prediction.uncond),
        alpha=step_input.level.alpha,
        sigma=step_input.level.sigma,
        progress=step_input.progress,
        index=step_input.index,
        steps=step_input.steps,
        image_seeds=tuple(image_seeds[row] for row in rows),
    )


def make_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Returns one CPU generator per image, so that the noise of an image depends on its own seed only."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def initial_noise(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """Draws noise of unit variance [B, *shape], always on the CPU and in float32, so that a seed means one image."""
    return torch.cat([torch.randn(1, *shape, generator=generator) for generator in generators])


def denoise_with_graph(
    predict: PredictNoise,
    scheduler: Any,
    noise: Tensor,
    generators: Sequence[torch.Generator],
    eta: float = 0.0,
    select: Selection | None = None,
    image_seeds: Sequence[int] | None = None,
) -> Iterator[StepOutput]:
    """Yields the batch after each step of the scheduler; closing the iterator stops the loop.

    Runs in the gradient mode of the caller, so that a loss on a StepOutput reaches `noise`; `denoise` is the same loop
    without gradients.

    Args:
        predict: the denoiser with guidance.
        scheduler: a diffusers scheduler with its timesteps set.
        noise: initial noise of unit variance, [B, C, h, w].
        generators: one per image, for stochastic schedulers.
        eta: share of the noise that each step replaces by new noise, 0 to 1. Used by DDIM (Song et al. 2020, arXiv
            2010.02502, equation 16) and by FlowMatchEuler.
        select: returns the indices of the rows to keep after a step; an index may repeat. Kept rows continue unchanged;
            a duplicate gets its own noise generator.
        image_seeds: the seeds in the StepState of `select`, by default those of the generators.
    """
    prediction_type = read_prediction_type({**scheduler.config, "_class_name": type(scheduler).__name__})
    seeds = [generator.initial_seed() for generator in generators] if image_seeds is None else image_seeds
    row_generators, rows = list(generators), tuple(range(len(noise)))
    # x_T: flow schedulers start at unit variance, the others at init_noise_sigma.
    latents = noise.to(scheduler.timesteps.device) * (1.0 if _is_flow(scheduler) else scheduler.init_noise_sigma)
    steps = len(scheduler.timesteps)
    for index, timestep in enumerate(scheduler.timesteps):
        # 1. Predict: the model output at x_t, and the correction of x0.
        level, scale_model_input = noise_level(scheduler, timestep), _input_scaling(scheduler, timestep)
        step_input = StepInput(latents, scale_model_input, timestep, level, prediction_type, index, steps, rows)
        prediction = predict(step_input)

        # 2. Step: the latents of the next noise level.
        options = _step_options(scheduler, row_generators, eta)
        latents, x0 = take_step(scheduler, step_input, prediction, options)
        latents = _replace_flow_noise(scheduler, level, latents, x0, row_generators, eta)

        # 3. Select: from here on the loop is what it would be if it had started with the selected rows.
        selected = None if select is None else select(step_state(step_input, prediction, seeds))
        if selected is not None:
            keep_rows(scheduler, latents.shape, selected)
            latents, x0, indices = latents[selected], x0[selected], selected.tolist()
            rows = tuple(rows[i] for i in indices)
            row_generators = _select_generators(row_generators, indices, index)
        yield StepOutput(index, steps, float(timestep), latents, x0, rows)


denoise = torch.no_grad()(denoise_with_graph)


def take_step(
    scheduler: Any, step_input: StepInput, prediction: Prediction, options: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """Takes one scheduler step with the correction of x0, and returns the next latents and the corrected x0.

    The correction goes into the model output before the step. For PNDM and LMS it is added to the latents after the
    step: these multistep solvers extrapolate from earlier model outputs, and would amplify a jump in them.
    """
    model_output, correction = prediction.model_output, prediction.correction
    x0 = step_input.x0(model_output)
    after_step = corrects_after_step(scheduler)
    if correction is not None and not after_step:
        model_output = inject(model_output, correction, step_input.level, step_input.prediction_type)
    latents: Tensor = scheduler.step(
        model_output, step_input.timestep, step_input.latents, **options, return_dict=False
    )[0]
    if correction is None:
        return latents, x0
    if after_step:
        latents = latents + shift_after_step(correction, *step_noise_levels(scheduler, step_input.index))
    return latents, x0 + correction


def keep_rows(scheduler: Any, shape: torch.Size, rows: Tensor) -> None:
    """Keeps the selected rows of each tensor of `shape` [B, C, h, w] that a scheduler stores of earlier steps."""

    def selected(value: Any) -> Any:
        return value[rows] if isinstance(value, Tensor) and value.shape == shape else value

    for name, value in list(vars(scheduler).items()):
        setattr(scheduler, name, [selected(item) for item in value] if isinstance(value, list) else selected(value))


def _select_generators(
    generators: Sequence[torch.Generator], indices: Sequence[int], step: int
) -> list[torch.Generator]:
    """Returns one generator per selected row: the first copy of a row keeps its generator, further copies get new ones.

    The seed of a new generator depends on the old seed, the step and the number of the copy.
    """
    selected: list[torch.Generator] = []
    for position, index in enumerate(indices):
        copy = list(indices[:position]).count(index)
        seed = seed_from_text(f"{generators[index].initial_seed()}/{step}/{copy}")
        selected.append(generators[index] if copy == 0 else torch.Generator("cpu").manual_seed(seed))
    return selected


def _is_flow(scheduler: Any) -> bool:
    return type(scheduler).__name__ in FLOW_MATCHING


def _input_scaling(scheduler: Any, timestep: Tensor) -> Callable[[Tensor], Tensor]:
    """Returns the scheduler's scale_model_input at this timestep; FlowMatch schedulers have none and scale nothing."""
    return (lambda latents: latents) if _is_flow(scheduler) else partial(scheduler.scale_model_input, timestep=timestep)


def _step_options(scheduler: Any, generators: Sequence[torch.Generator], eta: float) -> dict[str, Any]:
    """Returns the keyword arguments (`generator`, `eta`) that this scheduler's `step` accepts."""
    accepted = inspect.signature(scheduler.step).parameters
    options = {"generator": list(generators), "eta": min(eta, MAX_ETA)}
    return {name: value for name, value in options.items() if name in accepted}


def _replace_flow_noise(
    scheduler: Any, level: NoiseLevel, latents: Tensor, x0: Tensor, generators: Sequence[torch.Generator], eta: float
) -> Tensor:
    """Returns the latents after a step of FlowMatchEuler with a part of their noise replaced; DDIM's eta for flows.

    s and s' are sigma before and after the step. The deterministic step gives x' = (1 - s') x0 + s' e. With
    q = eta s' sqrt(1 - (s' (1 - s) / (s (1 - s')))^2) the noise s' e becomes sqrt(s'^2 - q^2) e + q n, where n is new
    noise. At eta = 1 this is the posterior of x' given x0 and x. `level` is that before the step.
    """
    if eta == 0 or type(scheduler).__name__ != "FlowMatchEulerDiscreteScheduler":
        return latents
    sigma, next_sigma = level.sigma, float(scheduler.sigmas[scheduler.step_index])
    if next_sigma == 0:
        return latents
    new_part = eta * next_sigma * sqrt(1 - (next_sigma * (1 - sigma) / (sigma * (1 - next_sigma))) ** 2)  # q
    noise = (latents - (1 - next_sigma) * x0) / next_sigma  # e
    new_noise = initial_noise(generators, tuple(latents.shape[1:])).to(latents)  # n
    return latents + (sqrt(next_sigma**2 - new_part**2) - next_sigma) * noise + new_part * new_noise
