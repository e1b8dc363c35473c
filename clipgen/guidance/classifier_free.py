"""Classifier-free guidance: what the prompt adds to no prompt, times a scale."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from clipgen.families import Conditioning
from clipgen.sampling.loop import Prediction, PredictNoise, StepInput

# (latents [N, C, h, w], timestep, conditioning [N, ...]) -> output [N, C, h, w]
Predict = Callable[[Tensor, Tensor, Conditioning], Tensor]
Mix = Callable[[StepInput, Tensor, Tensor], Tensor]  # (step_input, cond, uncond) -> the guided output, all [B, C, h, w]


def classifier_free(
    predict: Predict,
    conditional: Conditioning,
    unconditional: Conditioning,
    *,
    scale: float,
    start: float = 0.0,
    stop: float = 1.0,
    rescale: float = 0.0,
    mix: Mix | None = None,
    with_graph: Callable[[StepInput], bool] = lambda step_input: False,
) -> PredictNoise:
    """Returns the loop's prediction: uncond + scale (cond - uncond) while start <= progress < stop, else cond alone.

    Both halves run as one batch, the unconditional first; a scale of at most 1 never runs it, as in diffusers.
    `rescale` pulls the deviation back to the conditional one's; a `mix` takes the place of the sum above. Where
    `with_graph` says so, the conditional half runs alone and keeps the graph to its latents. Ho and Salimans 2022
    (arXiv 2207.12598, equation 6).
    """
    mixed = mix or (lambda step_input, cond, uncond: uncond + scale * (cond - uncond))

    @lru_cache(maxsize=1)  # the rows change only where a selection has chosen
    def halves(rows: tuple[int, ...] | None) -> tuple[Conditioning, Conditioning, Conditioning]:
        cond, uncond = _rows_of(conditional, rows), _rows_of(unconditional, rows)
        return cond, uncond, {name: torch.cat([uncond[name], told]) for name, told in cond.items()}

    def guided(step_input: StepInput) -> Prediction:
        guides, latents = scale > 1.0 and start <= step_input.progress < stop, step_input.latents
        prompt, nothing, both = halves(step_input.rows)
        uncond = None
        if with_graph(step_input):
            latents, cond = _with_graph(predict, step_input, prompt)
            uncond = (
                predict(step_input.scale_model_input(step_input.latents), step_input.timestep, nothing)
                if guides
                else None
            )
        elif guides:
            uncond, cond = predict(
                step_input.scale_model_input(torch.cat([latents, latents])), step_input.timestep, both
            ).chunk(2)
        else:
            cond = predict(step_input.scale_model_input(latents), step_input.timestep, prompt)
        output = cond if uncond is None else mixed(step_input, cond, uncond)
        if uncond is not None and rescale > 0.0:
            output = rescaled(output, cond, rescale)
        return Prediction(output, cond, uncond, latents)

    return guided


def _rows_of(conditioning: Conditioning, rows: tuple[int, ...] | None) -> Conditioning:
    """Returns the conditioning of some rows, None = all of them."""
    return conditioning if rows is None else {name: told[list(rows)] for name, told in conditioning.items()}


def _with_graph(predict: Predict, step_input: StepInput, conditional: Conditioning) -> tuple[Tensor, Tensor]:
    """Returns fresh leaf latents and the conditional output with its graph to them."""
    with torch.enable_grad():
        leaf = step_input.latents.detach().requires_grad_()
        return leaf, predict(step_input.scale_model_input(leaf), step_input.timestep, conditional)


def rescaled(output: Tensor, cond: Tensor, rescale: float) -> Tensor:
    """Mixes in `rescale` parts of the output at the conditional output's deviation, per picture.

    Against the overexposure of high scales: Lin et al. 2023 (arXiv 2305.08891, section 3.4).
    """
    axes = tuple(range(1, output.ndim))
    normed = output * (cond.std(dim=axes, keepdim=True) / output.std(dim=axes, keepdim=True))
    return rescale * normed + (1 - rescale) * output
