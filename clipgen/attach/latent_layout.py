"""The shapes in which diffusers pipelines keep latents, and conversions to and from [B, C, h, w].

[B, C, h, w]            most pipelines
[B, 4 C, h/2, w/2]      patches of 2 x 2 latents as channels: Ernie
[B, C, 1, h, w]         a video of one frame: Cosmos 2
[B, 1, h, w, C]         the same, channels last: Kandinsky 5
[B, h w, C]             one token per latent: Flux 2, Qwen-Image 2.1
[B, h/2 w/2, 4 C]       one token per patch of 2 x 2 latents, in the order (channel, row, column): Flux, Qwen-Image
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clipgen.errors import ModelError
from clipgen.families.flux import PATCH, pack_latents, unpack_latents

POSITIONS = ("img_ids", "position_ids")  # denoiser inputs [..., 3 or 4] with the row and column of each token


@dataclass(frozen=True)
class LatentLayout:
    """The layout of one pipeline's latents: their shape, the channels C of its VAE, and (rows, columns) of tokens."""

    shape: torch.Size
    channels: int
    token_grid: tuple[int, int] | None = None

    def to_grid(self, latents: Tensor) -> Tensor:
        """Returns latents of this layout as [B, C, h, w] in float32."""
        return self._to_grid(latents).float()

    def _to_grid(self, latents: Tensor) -> Tensor:
        if latents.ndim == 4 and latents.shape[1] == self.channels * PATCH**2:
            return latents.unflatten(1, (-1, PATCH, PATCH)).permute(0, 1, 4, 2, 5, 3).flatten(2, 3).flatten(3, 4)
        if latents.ndim == 4:
            return latents
        if latents.ndim == 5 and latents.shape[2] == 1:
            return latents[:, :, 0]
        if latents.ndim == 5 and latents.shape[1] == 1:
            return latents[:, 0].permute(0, 3, 1, 2)
        if latents.ndim == 3 and self.token_grid is not None:
            rows, columns = self.token_grid
            if latents.shape[1] == rows * columns and latents.shape[2] == self.channels:
                return latents.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
            if latents.shape[1] == rows * columns and latents.shape[2] == self.channels * PATCH**2:
                return unpack_latents(latents, rows * PATCH, columns * PATCH)
        shape = " x ".join(map(str, latents.shape))
        raise ModelError(f"ClipGuidance cannot read latents of {shape} as an image of {self.channels} channels.")

    def from_grid(self, grid: Tensor) -> Tensor:
        """Inverts `to_grid`: [B, C, h, w] in this layout."""
        if len(self.shape) == 4 and self.shape[1] == grid.shape[1]:
            return grid
        if len(self.shape) == 4:
            patches = grid.unflatten(2, (-1, PATCH)).unflatten(4, (-1, PATCH))  # [B, C, h/2, 2, w/2, 2]
            return patches.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
        if len(self.shape) == 5:
            return grid[:, :, None] if self.shape[2] == 1 else grid.permute(0, 2, 3, 1)[:, None]
        return grid.flatten(2).transpose(1, 2) if self.shape[2] == grid.shape[1] else pack_latents(grid)


def token_grid(inputs: Mapping[str, Any], tokens: int) -> tuple[int, int] | None:
    """Returns (rows, columns) of the image whose latents are `tokens` tokens, from the inputs of a denoiser.

    A reference image has tokens too: those of the generated image come first in `img_ids`, and last in `position_ids`,
    which begin with the text. Returns None if no input has the positions.
    """
    if (shapes := inputs.get("img_shapes")) is not None:  # per image, or per image and reference: (frames, h, w)
        own_shapes = shapes if isinstance(shapes[0][0], int) else shapes[0]
        return next(((int(h), int(w)) for *_, h, w in own_shapes if h * w == tokens), None)
    for name in POSITIONS:
        if (positions := inputs.get(name)) is not None:
            positions = positions.reshape(-1, *positions.shape[-2:])[0]  # [all tokens, axes]
            own = positions[:tokens] if name == "img_ids" else positions[-tokens:]
            rows, columns = (int(own[:, axis].max() - own[:, axis].min()) + 1 for axis in (1, 2))
            return rows, columns
    return None
