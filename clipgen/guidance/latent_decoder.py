"""Differentiable decoders for CLIP guidance, from a matrix of colours to the model's own VAE.

Each takes x0 [B, C, h, w] in float32 to pixels [B, 3, H, W], 0 to 1. CLIP reads small images, so a cheap decoder is
good enough for it, and guidance pays for the decoder forwards and backwards at each guided step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgen.errors import SettingsError
from clipgen.guidance.targets import Decode


class VaeModel(Protocol):
    """The part of a Family that the decoders need."""

    latent_rgb: Tensor | None
    vae: Any

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Returns the shape [C, h, w] of the latents of an image of this size in pixels."""

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32, mostly within 0 to 1."""


DecoderMaker = Callable[[VaeModel, int], Decode]
SAMPLES, SAMPLE_SIDE = 256, 2  # constant latents of 2 x 2 that `fit_latent_rgb` decodes
_FITTED_RGB: WeakKeyDictionary[VaeModel, tuple[Tensor, Tensor]] = WeakKeyDictionary()  # until the model is freed


def latent_decoder(model: VaeModel, name: str, image_size: int) -> Decode:
    """Returns a model's decoder by its `guide_decoder` name; `image_size` is that of CLIP's input in pixels.

    Raises SettingsError, naming the decoders that the model has, for another name.
    """
    return available_decoders(model)[resolve_decoder_name(model, name)](model, image_size)


def resolve_decoder_name(model: VaeModel, name: str) -> str:
    """Returns the name, for `auto` that of the model's first decoder; raises SettingsError for an unavailable one."""
    names = tuple(available_decoders(model))
    if name == "auto":
        return names[0]
    if name not in names:
        raise SettingsError(
            f"guide_decoder '{name[:60]}' is not available for this model. Works: auto, {', '.join(names)}.",
            field="guide_decoder",
            allowed=("auto", *names),
        )
    return name


def available_decoders(model: VaeModel) -> dict[str, DecoderMaker]:
    """Returns the decoders of a model by name; `auto` takes the first.

    tiny: the model's VAE if it is an AutoencoderTiny. linear: a matrix from latents to colours, preferred if the model
    brings one, else fitted. pooled: the VAE on latents pooled to CLIP's resolution. full: the VAE.
    """
    tiny = {"tiny": _full} if type(model.vae).__name__ == "AutoencoderTiny" else {}
    linear_first = {"linear": _linear, "pooled": _pooled} if model.latent_rgb is not None else {}
    return {**tiny, **linear_first, "pooled": _pooled, "linear": _linear, "full": _full}


def _full(model: VaeModel, image_size: int) -> Decode:
    """Returns the VAE decoder. Gradients underflow in float16, so then the first call makes a copy in float32."""
    if model.vae.dtype != torch.float16:
        return model.decode

    @cache
    def float32_model() -> VaeModel:
        float32 = copy.copy(model)
        float32.vae = copy.deepcopy(model.vae).float()
        return float32

    return lambda x0: float32_model().decode(x0)


def _pooled(model: VaeModel, image_size: int) -> Decode:
    """Returns the VAE decoder on average-pooled latents that decode to about `image_size`."""
    decode, latent_size = _full(model, image_size), model.latent_shape(image_size, image_size)[1]

    def pooled(x0: Tensor) -> Tensor:
        kernel = max(1, min(x0.shape[-2:]) // latent_size)
        return decode(F.avg_pool2d(x0, kernel, ceil_mode=True))

    return pooled


def _linear(model: VaeModel, image_size: int) -> Decode:
    """Returns an affine map from each latent to one pixel: the model's matrix, or one fitted at the first use."""
    if model.latent_rgb is None and model not in _FITTED_RGB:
        _FITTED_RGB[model] = fit_latent_rgb(model)
    matrix, offset = _FITTED_RGB[model] if model.latent_rgb is None else (model.latent_rgb, torch.zeros(3))

    def linear(x0: Tensor) -> Tensor:
        rgb = torch.einsum("bchw,cr->brhw", x0, matrix.to(x0)) + offset.to(x0)[:, None, None]  # [B, 3, h, w], -1 to 1
        return rgb / 2 + 0.5

    return linear


@torch.no_grad()
def fit_latent_rgb(model: VaeModel) -> tuple[Tensor, Tensor]:
    """Returns the matrix [C, 3] and offset [3] that predict the decoder's colours, -1 to 1, best from latents.

    Least squares on constant latents of unit variance. Fitted like this it explains 88% of the variance of the colours
    of storybook's images; fitted on white noise 53%, on storybook's own images 92%.
    """
    channels, device = model.latent_shape(64, 64)[0], model.vae.device
    generator = torch.Generator("cpu").manual_seed(0)
    latents = torch.randn(SAMPLES, channels, 1, 1, generator=generator).to(device)
    pixels = model.decode(latents.expand(-1, -1, SAMPLE_SIDE, SAMPLE_SIDE)).clamp(0, 1)  # [N, 3, H, W]
    colours = pixels.mean(dim=(2, 3)) * 2 - 1  # [N, 3]
    inputs = torch.cat([latents.flatten(1), torch.ones(SAMPLES, 1, device=device)], dim=1).double().cpu()  # [N, C + 1]
    # The normal equations: torch.linalg.lstsq differs in its last bits between runs.
    solution = torch.linalg.solve(inputs.T @ inputs, inputs.T @ colours.double().cpu()).float()  # [C + 1, 3]
    return solution[:-1], solution[-1]
