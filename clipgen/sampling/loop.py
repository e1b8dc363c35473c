"""The loop: from noise to latents, one scheduler step per yield."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from clipgen.sampling.prediction import (
    FLOW_MATCHING,
    VARIANCE_PRESERVING,
    NoiseLevel,
    check_prediction,
    corrects_after_step,
    inject,
    levels_of_step,
    noise_level,
    recover_x0,
    shift_after_step,
)
from clipgen.sampling.schedulers import SchedulerSpec, dynamic_mu, flow_shift, scheduler_for

LARGEST_ETA = 1 - 1e-6  # at 1 DDIM takes the root of 0, less a rounding, where it steps from zero terminal SNR


@dataclass(frozen=True)
class Point:
    """Where the loop stands before a step: `latents` x_t [B, C, h, w] in float32 = alpha x0 + sigma noise.

    `scaled` gives latents as the network takes them; `prediction` is what it predicts (prediction.PREDICTIONS); `rows`
    says which of the start batch these latents are, None = all of them, in order.
    """

    latents: Tensor
    scaled: Callable[[Tensor], Tensor]
    timestep: Tensor
    level: NoiseLevel
    prediction: str
    index: int
    steps: int
    rows: tuple[int, ...] | None = None

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
    """Returns a step's moment as guidance methods see it; `image_seeds` are those of the whole start batch."""
    with torch.set_grad_enabled(told.latents.requires_grad):  # the loop runs without
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
        image_seeds=tuple(image_seeds if point.rows is None else [image_seeds[row] for row in point.rows]),
    )


@dataclass(frozen=True)
class State:
    """A batch after one step: `latents` and the `x0` that the step was taken towards, both [B, C, h, w] in float32.

    `rows` says which of the start batch they are: all of them, in order, until a selection has chosen.
    """

    index: int
    steps: int
    timestep: float
    latents: Tensor
    x0: Tensor
    rows: tuple[int, ...]


def make_scheduler(
    name: str,
    config: Mapping[str, Any],
    steps: int,
    device: torch.device,
    *,
    tokens: int | None = None,
    sigmas: Sequence[float] | None = None,
) -> Any:
    """Returns a fresh scheduler of that name on a model's own scheduler config, set to so many steps.

    For flow models: `tokens` is how many places of a picture the denoiser sees, which a config with
    use_dynamic_shifting asks for; `sigmas`, `steps` of them, are levels before the shift that Euler and LCM take in
    place of their own. Raises SettingsError where the scheduler cannot work with what the model predicts.
    """
    import diffusers

    prediction = check_prediction(config)
    spec = scheduler_for(name, prediction)
    options = _flow_options(spec, config, tokens) if prediction == "flow" else {}
    scheduler = getattr(diffusers, spec.class_name).from_config({**config, **spec.options, **options})
    levels = _own_levels(scheduler, config, tokens, sigmas) if spec.needs_flow else {}
    scheduler.set_timesteps(steps, device=device, **levels)
    if spec.class_name not in VARIANCE_PRESERVING:
        scheduler.set_begin_index(0)  # its own search by timestep starts too late where rounding makes two alike
    return scheduler


def _flow_options(spec: SchedulerSpec, config: Mapping[str, Any], tokens: int | None) -> dict[str, Any]:
    """Returns what tells a scheduler that its model is a flow; those made for it shift dynamically by themselves."""
    shift = flow_shift(config, tokens)
    return {
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "shift": shift,
        "flow_shift": shift,
        "use_dynamic_shifting": spec.needs_flow and config.get("use_dynamic_shifting", False),
    }


def _own_levels(
    scheduler: Any, config: Mapping[str, Any], tokens: int | None, sigmas: Sequence[float] | None
) -> dict[str, Any]:
    """Returns of levels and mu what a scheduler for flow models takes when its timesteps are set."""
    mu = dynamic_mu(config, tokens) if config.get("use_dynamic_shifting") else None
    known = inspect.signature(scheduler.set_timesteps).parameters
    return {name: value for name, value in {"sigmas": sigmas, "mu": mu}.items() if name in known and value is not None}


def generators_of(seeds: Sequence[int]) -> list[torch.Generator]:
    """Returns one CPU generator per picture, so that a picture's noise depends on its own seed alone."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def start_noise(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """Draws the start noise [B, C, h, w], of unit variance, on the CPU in float32, whatever the model runs in."""
    return torch.cat([torch.randn(1, *shape, generator=generator) for generator in generators])


def denoise_with_graph(
    predict: PredictNoise,
    scheduler: Any,
    noise: Tensor,
    generators: Sequence[torch.Generator],
    eta: float = 0.0,
    select: Selection | None = None,
    image_seeds: Sequence[int] | None = None,
) -> Iterator[State]:
    """Yields the batch after each step of the scheduler; closing the iterator stops it.

    `noise` [B, C, h, w] has unit variance; `generators`, one a picture, give ancestral noise; `eta` is for DDIM (Song
    et al. 2020, arXiv 2010.02502, equation 16) and for the Euler of flow models. After each step `select` may choose
    the rows that go on, repeats allowed: the loop is then what it would be had it begun with them, but that copies of
    a row draw noise of their own. `image_seeds` go into its Moments; without them the generators' own do.

    It runs in the caller's gradient mode, so that a loss on a State can reach the noise; `denoise` is the same without
    any graph.
    """
    prediction = check_prediction({**scheduler.config, "_class_name": type(scheduler).__name__})
    drawing, rows = list(generators), tuple(range(len(noise)))
    seeds = [generator.initial_seed() for generator in drawing] if image_seeds is None else image_seeds
    latents = noise.to(scheduler.timesteps.device) * (1.0 if _is_flow(scheduler) else scheduler.init_noise_sigma)
    steps = len(scheduler.timesteps)
    for index, timestep in enumerate(scheduler.timesteps):
        level, scaled = noise_level(scheduler, timestep), _scaling(scheduler, timestep)
        point = Point(latents, scaled, timestep, level, prediction, index, steps, rows)
        told = predict(point)
        latents, x0 = take_step(scheduler, point, told, _step_options(scheduler, drawing, eta))
        latents = _with_fresh_noise(scheduler, point, latents, x0, drawing, eta)
        chosen = None if select is None else select(moment_of(point, told, seeds))
        if chosen is not None:
            keep_rows(scheduler, latents.shape, chosen)
            latents, x0, places = latents[chosen], x0[chosen], chosen.tolist()
            rows, drawing = tuple(rows[place] for place in places), _kept(drawing, places, index)
        yield State(index, steps, float(timestep), latents, x0, rows)


denoise = torch.no_grad()(denoise_with_graph)


def take_step(scheduler: Any, point: Point, told: Prediction, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Takes one step of the scheduler with the correction of x0 in it; returns the next latents and the x0 aimed at.

    Injected into the output, except for the solvers whose history would amplify it: those are corrected afterwards.
    """
    output, correction, x0 = told.output, told.correction, point.x0(told.output)
    after = corrects_after_step(scheduler)
    if correction is not None and not after:
        output = inject(output, correction, point.level, point.prediction)
    latents: Tensor = scheduler.step(output, point.timestep, point.latents, **options, return_dict=False)[0]
    if correction is None:
        return latents, x0
    if after:
        latents = latents + shift_after_step(correction, *levels_of_step(scheduler, point.index))
    return latents, x0 + correction


def keep_rows(scheduler: Any, shape: torch.Size, rows: Tensor) -> None:
    """Leaves of everything that a scheduler remembers of its samples, tensors of `shape` [B, C, h, w], those rows."""

    def kept(value: Any) -> Any:
        return value[rows] if isinstance(value, Tensor) and value.shape == shape else value

    for name, value in list(vars(scheduler).items()):
        setattr(scheduler, name, [kept(each) for each in value] if isinstance(value, list) else kept(value))


def _kept(generators: Sequence[torch.Generator], places: Sequence[int], step: int) -> list[torch.Generator]:
    """Returns a generator a place: the first copy of a row goes on with its own, the others get new ones."""
    kept: list[torch.Generator] = []
    for slot, place in enumerate(places):
        copy, generator = list(places[:slot]).count(place), generators[place]
        kept.append(generator if copy == 0 else _copied(generator, step, copy))
    return kept


def _copied(generator: torch.Generator, step: int, copy: int) -> torch.Generator:
    """Returns a generator whose seed follows from another's, the step and the number of the copy."""
    told = f"{generator.initial_seed()}/{step}/{copy}".encode()
    seed = int.from_bytes(hashlib.blake2b(told, digest_size=7).digest(), "big")
    return torch.Generator("cpu").manual_seed(seed)


def _is_flow(scheduler: Any) -> bool:
    return type(scheduler).__name__ in FLOW_MATCHING


def _scaling(scheduler: Any, timestep: Tensor) -> Callable[[Tensor], Tensor]:
    """Returns what makes latents the network's input; schedulers for flow models leave them alone."""
    return _as_it_is if _is_flow(scheduler) else partial(scheduler.scale_model_input, timestep=timestep)


def _as_it_is(latents: Tensor) -> Tensor:
    return latents


def _step_options(scheduler: Any, generators: Sequence[torch.Generator], eta: float) -> dict[str, Any]:
    """Returns of generator and eta what this scheduler's step takes, as diffusers' pipelines do."""
    known = inspect.signature(scheduler.step).parameters
    taken = {"generator": list(generators), "eta": min(eta, LARGEST_ETA)}
    return {name: value for name, value in taken.items() if name in known}


def _with_fresh_noise(
    scheduler: Any, point: Point, latents: Tensor, x0: Tensor, generators: Sequence[torch.Generator], eta: float
) -> Tensor:
    """Returns the latents of a flow's Euler step with a part of their noise drawn anew: what `eta` is to DDIM.

    With x' = (1 - s') x0 + s' e and q = eta s' sqrt(1 - (s' (1 - s) / (s (1 - s')))^2): s' e becomes
    sqrt(s'^2 - q^2) e + q n. At eta = 1 the noise of x' given x0 and x is the posterior's.
    """
    if eta == 0 or type(scheduler).__name__ != "FlowMatchEulerDiscreteScheduler":
        return latents
    before, after = point.level.sigma, float(scheduler.sigmas[scheduler.step_index])
    if after == 0:
        return latents
    part = eta * after * sqrt(1 - (after * (1 - before) / (before * (1 - after))) ** 2)
    noise = (latents - (1 - after) * x0) / after
    fresh = start_noise(generators, tuple(latents.shape[1:])).to(latents)
    return latents + (sqrt(after**2 - part**2) - after) * noise + part * fresh
