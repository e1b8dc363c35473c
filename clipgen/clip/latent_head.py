"""What CLIP would see in a picture, told from its noisy latents: guidance without decoding.

GLIDE's noised CLIP (Nichol et al. 2022, arXiv 2112.10741) moved to latents; Latent-CLIP (2503.08455) is kin.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class LatentHead:
    """A vision transformer on latents and their noise level, which guesses the model's own CLIP's image features.

    `model` is a transformers CLIPVisionModelWithProjection with a channel more than the latents: the noise level.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.image_size: int = model.config.image_size

    def features(self, latents: Tensor, sigma: Tensor) -> Tensor:
        """Returns unit vectors [B, D] of latents [B, C, h, w] with noise levels sigma [B] in [0, 1].

        latents = sqrt(1 - sigma^2) x0 + sigma noise. Of latents of another side it sees the middle square, resized.
        """
        seen = self._square(latents)
        level = sigma.to(seen).view(-1, 1, 1, 1).expand(-1, 1, *seen.shape[-2:])
        found: Tensor = self.model(torch.cat([seen, level], dim=1)).image_embeds
        return F.normalize(found.float(), dim=-1)

    def _square(self, latents: Tensor) -> Tensor:
        height, width = latents.shape[-2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = latents[..., top : top + side, left : left + side]
        return (
            square
            if side == self.image_size
            else F.interpolate(square, (self.image_size, self.image_size), mode="area")
        )
