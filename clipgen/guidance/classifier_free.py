"""Classifier-free guidance: what the prompt adds to no prompt, times a scale."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clipgen.denoise import PredictNoise
from clipgen.families import Conditioning

# (latents [N, C, h, w], timestep, conditioning [N, ...]) -> output [N, C, h, w]
Predict = Callable[[Tensor, Tensor, Conditioning], Tensor]


def classifier_free(
    predict: Predict,
    conditional: Conditioning,
    unconditional: Conditioning,
    *,
    scale: float,
    start: float = 0.0,
    stop: float = 1.0,
    rescale: float = 0.0,
) -> PredictNoise:
    """Returns the loop's prediction: uncond + scale (cond - uncond) while start <= progress < stop, else cond alone.

    Both halves run as one batch, the unconditional first; a scale of at most 1 never runs it, as in diffusers.
    `rescale` pulls the deviation back to the conditional one's. Ho and Salimans 2022 (arXiv 2207.12598, equation 6).
    """
    both = {name: torch.cat([unconditional[name], told]) for name, told in conditional.items()}

    def guided(latents: Tensor, timestep: Tensor, progress: float) -> Tensor:
        if scale <= 1.0 or not start <= progress < stop:
            return predict(latents, timestep, conditional)
        uncond, cond = predict(torch.cat([latents, latents]), timestep, both).chunk(2)
        output = uncond + scale * (cond - uncond)
        return rescaled(output, cond, rescale) if rescale > 0.0 else output

    return guided


def rescaled(output: Tensor, cond: Tensor, rescale: float) -> Tensor:
    """Mixes in `rescale` parts of the output at the conditional output's deviation, per picture.

    Against the overexposure of high scales: Lin et al. 2023 (arXiv 2305.08891, section 3.4).
    """
    axes = tuple(range(1, output.ndim))
    normed = output * (cond.std(dim=axes, keepdim=True) / output.std(dim=axes, keepdim=True))
    return rescale * normed + (1 - rescale) * output
