"""From what CLIP sees in a picture to what a denoiser is told: the text states of a prompt that nobody has written.

IP-Adapter's image projection (Ye et al. 2023, arXiv 2308.06721) with the MLP mapper of ClipCap (Mokady et al. 2021,
2111.09734, section 3.1) in it; unCLIP projects CLIP's vector into the text states of its decoder alike (Ramesh et al.
2022, 2204.06125, section 2.1). What draws with it makes variations of a picture.
"""

from __future__ import annotations

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

FOLDER = "image_projection"  # in a model folder, beside its clip


class ImageProjection(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """An MLP from the `features` numbers of CLIP's vector to `tokens` text states of `width` numbers.

    `hidden` numbers are mixed in between, and `rank` of them span all the states.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, features: int, tokens: int, width: int, hidden: int = 1024, rank: int = 256) -> None:
        super().__init__()
        self.mapper = nn.Sequential(
            nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, rank), nn.LayerNorm(rank),
            nn.Linear(rank, tokens * width),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """Returns text states [B, T, W] of CLIP's unit vectors [B, D]."""
        scaled = features * features.shape[-1] ** 0.5  # numbers of unit size
        found: Tensor = self.mapper(scaled).unflatten(1, (self.config.tokens, self.config.width))
        return found
