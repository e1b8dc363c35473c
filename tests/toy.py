"""A toy model with an exact denoiser, a mixture of 12 Gaussians in 64 dimensions, to test what guidance does.

A sample is [64, 1, 1]. The modes lie in the first 8 channels (inside) with a standard deviation of 0.3; in the other 56
(outside) the data has mean 0 and a standard deviation of 0.03. E[x0 | x_t] is a formula, so that guidance and scheduler
are tested without the error of a network. The reward has an adversarial direction outside; `hits`, which finds the
nearest mode, has none. The toy shows mechanisms, not the quality of images.
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
TARGET = 0  # the mode with the highest reward


def _modes() -> Tensor:
    """Returns the means [12, 64]: random directions of length 2 inside, 0 outside."""
    inside = torch.randn(COUNT, INSIDE, generator=torch.Generator().manual_seed(11))
    return torch.cat([2 * inside / inside.norm(dim=1, keepdim=True), torch.zeros(COUNT, OUTSIDE)], dim=1)


MODES = _modes()


def mean_x0(latents: Tensor, alpha: float, sigma: float, prior: Tensor | None = None) -> Tensor:
    """Returns E[x0 | x_t] [B, 64, 1, 1]; `prior` [12] are the weights of the modes, equal by default."""
    x = latents.flatten(1)
    variance = (alpha * SPREAD).square() + sigma**2  # of x_t within a mode, [64]
    offset = x[:, None] - alpha * MODES  # [B, 12, 64]
    weight = (torch.ones(COUNT) if prior is None else prior).log() - (offset.square() / variance).sum(dim=2) / 2
    means = MODES + alpha * SPREAD.square() / variance * offset
    return (weight.softmax(dim=1)[..., None] * means).sum(dim=1).reshape(latents.shape)


def model_output_for(x0: Tensor, latents: Tensor, step_input: StepInput) -> Tensor:
    """Returns the model output that implies this x0, for the prediction type of the step."""
    alpha, sigma, norm = step_input.level.alpha, step_input.level.sigma, step_input.level.norm
    noise = (latents - alpha * x0) / sigma
    v = (alpha * noise - sigma * x0) / norm
    return {"epsilon": noise, "v_prediction": v, "flow": noise - x0, "sample": x0}[step_input.prediction_type]


def network(
    scale: float = 1.0, prior: Tensor | None = None, needs_graph: Callable[[StepInput], bool] = lambda step_input: False
) -> PredictNoise:
    """Returns the exact denoiser under classifier-free guidance: modes weighted by `prior` against equal weights.

    At scale 1 there is no unconditional half. If `needs_graph` is true for a step, `cond` keeps its graph.
    """

    def predict(step_input: StepInput) -> Prediction:
        latents, level = step_input.latents, step_input.level
        with torch.set_grad_enabled(needs_graph(step_input)):
            leaf = latents.detach().requires_grad_() if needs_graph(step_input) else latents
            cond = model_output_for(mean_x0(leaf, level.alpha, level.sigma, prior), leaf, step_input)
        if scale == 1.0:
            return Prediction(cond.detach(), cond, None, leaf)
        uncond = model_output_for(mean_x0(latents, level.alpha, level.sigma), latents, step_input)
        return Prediction(uncond + scale * (cond.detach() - uncond), cond, uncond, leaf)

    return predict


def reward(x0: Tensor) -> Tensor:
    """Returns [B]: the cosine to the target mode inside, plus 3 tanh(x.u / 2) for the adversarial u outside."""
    inside, outside = x0.flatten(1)[:, :INSIDE], x0.flatten(1)[:, INSIDE:]
    honest = torch.nn.functional.cosine_similarity(inside, MODES[TARGET, :INSIDE][None])
    return honest + 3 * torch.tanh(0.5 * outside.sum(dim=1) / math.sqrt(OUTSIDE))


def reward_gradient(x0: Tensor) -> Tensor:
    """Returns the gradient of the reward [B, 64, 1, 1], as a formula."""
    inside, outside = x0.flatten(1)[:, :INSIDE], x0.flatten(1)[:, INSIDE:]
    length, target = inside.norm(dim=1, keepdim=True), MODES[TARGET, :INSIDE] / MODES[TARGET].norm()
    along = inside / length
    honest = (target - (along @ target)[:, None] * along) / length
    adversarial = 1.5 * (1 - torch.tanh(0.5 * outside.sum(dim=1) / math.sqrt(OUTSIDE)).square()) / math.sqrt(OUTSIDE)
    return torch.cat([honest, adversarial[:, None].expand_as(outside)], dim=1).reshape(x0.shape)


def hits(x0: Tensor) -> float:
    """Returns the share of samples whose nearest mode is the target, measured inside only."""
    near = torch.cdist(x0.flatten(1)[:, :INSIDE], MODES[:, :INSIDE]).argmin(dim=1)
    return float((near == TARGET).float().mean())


def off_manifold(x0: Tensor) -> float:
    """Returns the rms outside divided by that of the data: 1 = on the manifold."""
    return float(x0.flatten(1)[:, INSIDE:].square().mean().sqrt() / SPREAD[-1])


def toy_guidance(strength: float, *, start: float = 0.1, stop: float = 0.7, every: int = 1) -> Correction:
    """Returns guidance by the gradient G of the reward within a trust region, as ClipGradient does it.

    D = strength every k G rms(x0 - x0_uncond) / rms(G) with k = sigma / sqrt(alpha^2 + sigma^2), for a flow k = sigma;
    a tenth of rms(x0) takes the place of rms(x0 - x0_uncond) if there is no unconditional half.
    """
    active: list[int] = []

    def correction(state: StepState) -> Tensor | None:
        if not start <= state.progress < stop:
            return None
        active.append(state.index)
        if (state.index - active[0]) % every:
            return None
        gradient = reward_gradient(state.x0)
        is_flow = abs(state.alpha + state.sigma - 1) < 1e-9
        noise_share = state.sigma / (1.0 if is_flow else math.hypot(state.alpha, state.sigma))
        reference = 0.1 * _rms(state.x0) if state.x0_uncond is None else _rms(state.x0 - state.x0_uncond)
        return strength * every * noise_share * reference * gradient / (_rms(gradient) + 1e-12)

    return correction


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


def scheduler_config(name: str, prediction: str = "epsilon") -> dict[str, object]:
    """Returns the scheduler config of the toy, as a diffusion model or as a flow."""
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
    """Returns the last step of a run; the seeds of its rows are 0, 1, 2 ..."""
    generators = make_generators(range(rows))
    scheduler_instance = make_scheduler(scheduler, scheduler_config(scheduler, prediction), steps, torch.device("cpu"))
    return list(denoise(predict, scheduler_instance, initial_noise(generators, SHAPE), generators, eta, select))[-1]
