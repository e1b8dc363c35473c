"""Guidance by a latent head: CLIP's gradient at the noisy latents themselves, without decoding anything.

Nichol et al. 2022 (GLIDE's noised CLIP, arXiv 2112.10741), on latents.
"""

from __future__ import annotations

from math import hypot
from typing import Any

import torch
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.latent_head import LatentHead
from clipgen.errors import SettingsError
from clipgen.families import Family
from clipgen.guidance.clip_gradient import ClipGradient, angle_loss
from clipgen.guidance.targets import ClipTarget, GuidanceEncoders
from clipgen.sampling.loop import StepState
from clipgen.settings.settings import Settings


class LatentGradient(ClipGradient):
    """A ClipGradient whose guide sees what the head guesses from x_t, whole pictures only; `options` are the same."""

    def __init__(self, guide: ClipTarget, head: LatentHead, **options: Any) -> None:
        super().__init__([guide], _undecoded, cutouts=1, **options)
        self.head = head

    def _gradient(self, moment: StepState) -> tuple[Tensor, Tensor]:
        """Returns the way down the loss at x_t [B, C, h, w], and 1 for each row: there is no second key."""
        guide, norm = self.guides[0], hypot(moment.alpha, moment.sigma)
        with torch.enable_grad():
            latents = moment.latents.detach().float().requires_grad_()
            level = torch.full((len(latents),), moment.sigma / norm, device=latents.device)
            features = self.head.features(latents / norm, level)  # [B, D]
            loss = angle_loss(features[:, None], guide.targets, guide.weights).sum()
        (gradient,) = torch.autograd.grad(loss, latents)
        similarity = (features * guide.targets[:, 0]).sum(dim=-1).detach()
        self._seen.append((moment.index, moment.image_seeds, similarity))
        return -gradient, torch.ones_like(latents[:, :1])


def _undecoded(latents: Tensor) -> Tensor:
    return latents


def choose_latent_head(
    settings: Settings, encoders: GuidanceEncoders, family: Family, own: ClipEncoder | None
) -> LatentHead | None:
    """Returns the head that guides where `auto` or `latent` asks for one; None where pixels are needed, or it is not.

    It guesses what the model's own CLIP sees, so that it cannot speak for another. Raises SettingsError.
    """
    alone = encoders.guides == (own,) and encoders.second is None and not settings.through_unet
    if family.latent_head is None or settings.guide_decoder not in ("auto", "latent"):
        return None
    if settings.guide_decoder == "latent" and not alone:
        line = "guide_decoder 'latent' speaks for the model's own CLIP alone, without through_unet. Use auto."
        raise SettingsError(line, field="guide_decoder")
    return family.latent_head if alone else None
