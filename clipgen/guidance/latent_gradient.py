"""Guidance by a latent head: the gradient of CLIP similarity at the noisy latents, without decoding.

The noised CLIP of GLIDE (Nichol et al. 2021, arXiv 2112.10741), on latents.
"""

from __future__ import annotations

from math import hypot

import torch
from torch import Tensor

from clipgen.clip.latent_head import LatentHead
from clipgen.errors import SettingsError
from clipgen.families import Family
from clipgen.guidance.clip_gradient import ClipGradient, spherical_dist_loss
from clipgen.guidance.targets import ClipTarget, GuidanceEncoders
from clipgen.sampling.loop import StepState
from clipgen.settings.settings import Settings


class LatentGradient(ClipGradient):
    """A ClipGradient at x_t: the latent head predicts the image features of the decoded x0 from x_t.

    It has no views, no denoiser Jacobian and no veto. `scale`, `start`, `stop` and `every` as in ClipGradient.
    """

    def __init__(
        self, target: ClipTarget, head: LatentHead, *, scale: float, start: float, stop: float, every: int
    ) -> None:
        super().__init__([target], lambda x0: x0, scale=scale, cutouts=1, start=start, stop=stop, every=every)
        self.head = head

    def _gradient(self, state: StepState, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns minus the gradient at x_t [B, C, h, w], ones [B, 1, h, w]: nothing vetoes, and similarities [B]."""
        target = self.targets[0].of_rows(rows)
        norm = hypot(state.alpha, state.sigma)  # the head was trained on variance preserving latents
        with torch.enable_grad():
            latents = state.latents.detach().float().requires_grad_()  # x_t [B, C, h, w]
            sigmas = torch.full((len(latents),), state.sigma / norm, device=latents.device)  # [B]
            features = self.head.features(latents / norm, sigmas)  # [B, D]
            loss = spherical_dist_loss(features[:, None], target.embeddings, target.weights).sum()
        (gradient,) = torch.autograd.grad(loss, latents)
        similarities = (features * target.embeddings[:, 0]).sum(dim=-1).detach()  # [B]
        return -gradient, torch.ones_like(latents[:, :1]), similarities


def choose_latent_head(settings: Settings, encoders: GuidanceEncoders, family: Family) -> LatentHead | None:
    """Returns the model's latent head if `guide_decoder` is `latent`, or `auto` and the head can do the job.

    A head predicts the features of the model's own CLIP at x_t. So it cannot replace other CLIPs, a veto or a gradient
    through the denoiser: None for `auto` then, and a SettingsError for `latent`. A model without a head gives None.
    """
    if family.latent_head is None or settings.guide_decoder not in ("auto", "latent"):
        return None
    is_enough = encoders.guiding == (encoders.own,) and encoders.veto is None and not settings.through_unet
    if settings.guide_decoder == "latent" and not is_enough:
        raise SettingsError(
            "guide_decoder 'latent' works with the model's own CLIP only, without through_unet. Use auto.",
            field="guide_decoder",
        )
    return family.latent_head if is_enough else None
