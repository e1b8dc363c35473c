"""A network that predicts CLIP image features from noisy latents, so that guidance needs no decoder.

It moves GLIDE's noised CLIP (Nichol et al. 2022, arXiv 2112.10741) into latent space; Latent-CLIP (arXiv 2503.08455)
is related.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class LatentHead:
    """A vision transformer that predicts the image features of the model's own CLIP from latents and noise level.

    `model` is a transformers CLIPVisionModelWithProjection with one input channel more than the latents; that channel
    holds the noise level.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.image_size: int = model.config.image_size

    def features(self, latents: Tensor, sigma: Tensor) -> Tensor:
        """Returns unit vectors [B, D] of latents [B, C, h, w] with noise levels `sigma` [B] in [0, 1].

        latents = sqrt(1 - sigma^2) x0 + sigma noise. Latents of another size are cropped to the centre square and
        resized.
        """
        square = self._centre_square(latents)
        level = sigma.to(square).view(-1, 1, 1, 1).expand(-1, 1, *square.shape[-2:])  # [B, 1, side, side]
        embeds: Tensor = self.model(torch.cat([square, level], dim=1)).image_embeds
        return F.normalize(embeds.float(), dim=-1)

    def _centre_square(self, latents: Tensor) -> Tensor:
        height, width = latents.shape[-2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = latents[..., top : top + side, left : left + side]
        if side == self.image_size:
            return square
        return F.interpolate(square, (self.image_size, self.image_size), mode="area")
