"""Classifier-free guidance: uncond + scale (cond - uncond).

Ho and Salimans 2022 (arXiv 2207.12598, equation 6).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from clipgen.families import Conditioning, join_rows
from clipgen.sampling.loop import Prediction, PredictNoise, StepInput

# (latents [N, C, h, w], timestep, conditioning [N, ...]) -> model output [N, C, h, w]
Denoiser = Callable[[Tensor, Tensor, Conditioning], Tensor]
# (step_input, cond, uncond) -> guided model output, all [B, C, h, w]
Combine = Callable[[StepInput, Tensor, Tensor], Tensor]


def classifier_free(
    denoiser: Denoiser,
    conditioning: Conditioning,
    negative_conditioning: Conditioning,
    *,
    scale: float,
    start: float = 0.0,
    stop: float = 1.0,
    rescale: float = 0.0,
    combine: Combine | None = None,
    needs_graph: Callable[[StepInput], bool] = lambda step_input: False,
) -> PredictNoise:
    """Returns the prediction under classifier-free guidance.

    Args:
        denoiser: the network of the model family.
        conditioning: that of the prompts, tensors [B, ...].
        negative_conditioning: that of the negative prompts.
        scale: guidance_scale; up to 1 the unconditional half does not run, as in diffusers.
        start: progress at which guidance begins, 0 to 1; outside of the interval the conditional half runs alone.
        stop: progress at which it ends.
        rescale: guidance_rescale, 0 to 1; see `rescale_noise_cfg`.
        combine: takes the place of uncond + scale (cond - uncond).
        needs_graph: if true for a step, its conditional half runs alone and keeps its graph to the latents.
    """
    combine = combine or (lambda step_input, cond, uncond: uncond + scale * (cond - uncond))

    @lru_cache(maxsize=1)  # the rows change only when a selection has chosen
    def conditioning_of(rows: tuple[int, ...] | None) -> tuple[Conditioning, Conditioning, Conditioning]:
        prompt, negative = _select_rows(conditioning, rows), _select_rows(negative_conditioning, rows)
        return prompt, negative, {name: join_rows([negative[name], tensor]) for name, tensor in prompt.items()}

    def predict(step_input: StepInput) -> Prediction:
        latents, timestep, scale_model_input = step_input.latents, step_input.timestep, step_input.scale_model_input
        prompt, negative, both = conditioning_of(step_input.rows)
        is_guided = scale > 1.0 and start <= step_input.progress < stop
        uncond = None
        if needs_graph(step_input):
            # The halves run apart: as one batch, both would be back-propagated.
            latents, cond = _predict_with_graph(denoiser, step_input, prompt)
            if is_guided:
                uncond = denoiser(scale_model_input(step_input.latents), timestep, negative)
        elif is_guided:
            # One batch of 2B rows, the unconditional half first.
            outputs = denoiser(scale_model_input(torch.cat([latents, latents])), timestep, both)
            uncond, cond = outputs.chunk(2)
        else:
            cond = denoiser(scale_model_input(latents), timestep, prompt)
        model_output = cond if uncond is None else combine(step_input, cond, uncond)
        if uncond is not None and rescale > 0.0:
            model_output = rescale_noise_cfg(model_output, cond, rescale)
        return Prediction(model_output, cond, uncond, latents)

    return predict


def _select_rows(conditioning: Conditioning, rows: tuple[int, ...] | None) -> Conditioning:
    """Returns the conditioning of the rows with these indices; None means all of them."""
    return conditioning if rows is None else {name: tensor[list(rows)] for name, tensor in conditioning.items()}


def _predict_with_graph(denoiser: Denoiser, step_input: StepInput, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
    """Returns new leaf latents and the conditional model output with its graph to them."""
    with torch.enable_grad():
        latents = step_input.latents.detach().requires_grad_()
        return latents, denoiser(step_input.scale_model_input(latents), step_input.timestep, conditioning)


def rescale_noise_cfg(model_output: Tensor, cond: Tensor, guidance_rescale: float) -> Tensor:
    """Returns the guided output pulled back to the standard deviation of the conditional one, per row.

    `guidance_rescale` is the share of the rescaled output, 0 to 1. It prevents the overexposure of high guidance
    scales: Lin et al. 2023 (arXiv 2305.08891, section 3.4).
    """
    axes = tuple(range(1, model_output.ndim))
    rescaled = model_output * (cond.std(dim=axes, keepdim=True) / model_output.std(dim=axes, keepdim=True))
    return guidance_rescale * rescaled + (1 - guidance_rescale) * model_output
