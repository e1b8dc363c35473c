"""From what CLIP sees in a picture to what a denoiser is told: the text states of a prompt that nobody has written.

IP-Adapter's image projection (Ye et al. 2023, arXiv 2308.06721) with ClipCap's transformer mapper (Mokady et al. 2021,
2111.09734, section 3.2) in it; unCLIP projects CLIP's vector into the text states of its decoder alike (Ramesh et al.
2022, 2204.06125, section 2.1). What draws with it makes variations of a picture.
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

FOLDER = "image_projection"  # in a model folder, beside its clip


class ImageProjection(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A transformer over `lead` states that CLIP's vector gives and one learnt state a token, which it turns into text.

    `features` numbers of a vector become `tokens` text states of `width` numbers.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, features: int, tokens: int, width: int, num_layers: int = 3, num_heads: int = 4, lead: int = 4
    ) -> None:
        super().__init__()
        self.lead = nn.Linear(features, lead * width)
        self.places = nn.Parameter(torch.randn(lead + tokens, width) * 0.1)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, num_heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.states = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Returns text states [B, T, W] of CLIP's unit vectors [B, D]."""
        tokens, width = self.config.tokens, self.config.width
        told = self.lead(features).unflatten(1, (-1, width)) * features.shape[-1] ** 0.5  # [B, lead, W] of unit size
        states = torch.cat([told, told.new_zeros(len(told), tokens, width)], dim=1) + self.places
        for layer in self.layers:
            states = layer(states)
        found: Tensor = self.states(self.norm(states[:, -tokens:]))
        return found
