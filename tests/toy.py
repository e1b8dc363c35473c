"""A model whose answers are known exactly: 12 Gaussians in 8 of 64 dimensions, to see what guidance does to samples.

A row is [64, 1, 1]: the first 8 channels are the inside, where the modes lie and spread by 0.3, the other 56 the
outside, where data hardly ever goes (0.03). For a noisy x = alpha x0 + sigma noise, E[x0 | x] is a formula, so what is
measured is guidance and scheduler alone, with no network's error in it. The reward can be cheated along one direction
of the outside; the judge, the nearest mode, cannot. It proves mechanisms, never the quality of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from clipgen.sampling.loop import (
    Correction,
    Prediction,
    PredictNoise,
    Selection,
    StepInput,
    StepOutput,
    StepState,
    denoise,
    initial_noise,
    make_generators,
)
from clipgen.sampling.make_scheduler import make_scheduler

INSIDE, OUTSIDE, COUNT = 8, 56, 12
SHAPE = (INSIDE + OUTSIDE, 1, 1)
SPREAD = torch.cat([torch.full((INSIDE,), 0.3), torch.full((OUTSIDE,), 0.03)])
DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
TARGET = 0  # the mode that the reward asks for


def _modes() -> Tensor:
    """Returns the means [12, 64]: directions of length 2 inside, nothing outside."""
    inside = torch.randn(COUNT, INSIDE, generator=torch.Generator().manual_seed(11))
    return torch.cat([2 * inside / inside.norm(dim=1, keepdim=True), torch.zeros(COUNT, OUTSIDE)], dim=1)


MODES = _modes()


def mean_x0(latents: Tensor, alpha: float, sigma: float, prior: Tensor | None = None) -> Tensor:
    """Returns E[x0 | x] [B, 64, 1, 1] of latents; `prior` [12] are the modes' weights, equal ones by default."""
    x = latents.flatten(1)
    variance = (alpha * SPREAD).square() + sigma**2  # of x within a mode, [64]
    off = x[:, None] - alpha * MODES  # [B, 12, 64]
    weight = (torch.ones(COUNT) if prior is None else prior).log() - (off.square() / variance).sum(dim=2) / 2
    means = MODES + alpha * SPREAD.square() / variance * off
    return (weight.softmax(dim=1)[..., None] * means).sum(dim=1).reshape(latents.shape)


def output_of(x0: Tensor, latents: Tensor, step_input: StepInput) -> Tensor:
    """Returns what a network has to say at a step_input for its x0 to be this one."""
    alpha, sigma, norm = step_input.level.alpha, step_input.level.sigma, step_input.level.norm
    noise = (latents - alpha * x0) / sigma
    v = (alpha * noise - sigma * x0) / norm
    return {"epsilon": noise, "v_prediction": v, "flow": noise - x0, "sample": x0}[step_input.prediction_type]


def network(
    scale: float = 1.0, prior: Tensor | None = None, with_graph: Callable[[StepInput], bool] = lambda step_input: False
) -> PredictNoise:
    """Returns the exact denoiser: modes weighted by `prior`, guided at `scale` against all of them alike.

    At scale 1 there is no unconditional half. Where `with_graph` says so, `cond` leads back to its latents.
    """

    def predict(step_input: StepInput) -> Prediction:
        latents, level = step_input.latents, step_input.level
        with torch.set_grad_enabled(with_graph(step_input)):
            leaf = latents.detach().requires_grad_() if with_graph(step_input) else latents
            cond = output_of(mean_x0(leaf, level.alpha, level.sigma, prior), leaf, step_input)
        if scale == 1.0:
            return Prediction(cond.detach(), cond, None, leaf)
        uncond = output_of(mean_x0(latents, level.alpha, level.sigma), latents, step_input)
        return Prediction(uncond + scale * (cond.detach() - uncond), cond, uncond, leaf)

    return predict


def reward(x0: Tensor) -> Tensor:
    """Returns [B]: the cosine to the target mode inside, plus 3 tanh(x.u / 2) for cheating along u outside."""
    inside, outside = x0.flatten(1)[:, :INSIDE], x0.flatten(1)[:, INSIDE:]
    fair = torch.nn.functional.cosine_similarity(inside, MODES[TARGET, :INSIDE][None])
    return fair + 3 * torch.tanh(0.5 * outside.sum(dim=1) / math.sqrt(OUTSIDE))


def reward_gradient(x0: Tensor) -> Tensor:
    """Returns the gradient of the reward, of x0's shape, as a formula."""
    inside, outside = x0.flatten(1)[:, :INSIDE], x0.flatten(1)[:, INSIDE:]
    length, wanted = inside.norm(dim=1, keepdim=True), MODES[TARGET, :INSIDE] / MODES[TARGET].norm()
    along = inside / length
    fair = (wanted - (along @ wanted)[:, None] * along) / length
    cheat = 1.5 * (1 - torch.tanh(0.5 * outside.sum(dim=1) / math.sqrt(OUTSIDE)).square()) / math.sqrt(OUTSIDE)
    return torch.cat([fair, cheat[:, None].expand_as(outside)], dim=1).reshape(x0.shape)


def hits(x0: Tensor) -> float:
    """Returns the share of rows whose nearest mode is the target: the judge, which does not look outside."""
    near = torch.cdist(x0.flatten(1)[:, :INSIDE], MODES[:, :INSIDE]).argmin(dim=1)
    return float((near == TARGET).float().mean())


def off_manifold(x0: Tensor) -> float:
    """Returns the rms of the outside over that of data: 1 = as good as data."""
    return float(x0.flatten(1)[:, INSIDE:].square().mean().sqrt() / SPREAD[-1])


def push(strength: float, *, start: float = 0.1, stop: float = 0.7, every: int = 1) -> Correction:
    """Returns guidance by the reward's gradient at the length of a trust region, on every `every`-th step.

    D = strength every k G rms(x0 - x0_uncond) / rms(G) with k = sigma / sqrt(alpha^2 + sigma^2), sigma for a flow; a
    tenth of rms(x0) where there is no unconditional half.
    """
    first: list[int] = []

    def correction(moment: StepState) -> Tensor | None:
        if not start <= moment.progress < stop:
            return None
        first.append(moment.index)
        if (moment.index - first[0]) % every:
            return None
        gradient = reward_gradient(moment.x0)
        is_flow = abs(moment.alpha + moment.sigma - 1) < 1e-9
        part = moment.sigma / (1.0 if is_flow else math.hypot(moment.alpha, moment.sigma))
        reference = 0.1 * _rms(moment.x0) if moment.x0_uncond is None else _rms(moment.x0 - moment.x0_uncond)
        return strength * every * part * reference * gradient / (_rms(gradient) + 1e-12)

    return correction


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


def config_of(name: str, prediction: str = "epsilon") -> dict[str, object]:
    """Returns the scheduler config of the toy as a diffusion model or as a flow."""
    return FLOW if prediction == "flow" or name.startswith("flow") else {**DIFFUSION, "prediction_type": prediction}


def draw(
    predict: PredictNoise,
    scheduler: str,
    steps: int,
    rows: int,
    *,
    prediction: str = "epsilon",
    eta: float = 0.0,
    select: Selection | None = None,
) -> StepOutput:
    """Returns the last state of a run of so many rows, whose seeds count from 0."""
    generators = make_generators(range(rows))
    made = make_scheduler(scheduler, config_of(scheduler, prediction), steps, torch.device("cpu"))
    return list(denoise(predict, made, initial_noise(generators, SHAPE), generators, eta, select))[-1]
