"""Latents of images, encoded once and kept: the denoiser and the latent head train on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from clipgen.train.data import Images, Indices

FRESH_SHARE = 0.25  # of a batch is encoded for the first time, as long as there are such images
Choose = Callable[[int, int], Indices]  # (size of the batch, images stored) -> which of the stored ones


class LatentStore:
    """Encodes images in random order, a few per batch, and fills the batch with latents that it already has.

    `choose` picks the latter; by default at random. `fresh` is the number of new images per batch.
    """

    def __init__(
        self, vae: AutoencoderTiny, data: Images, rng: np.random.Generator, *, held_back: int, fresh: int = 0,
        choose: Choose | None = None,
    ) -> None:  # fmt: skip
        self.vae, self.data, self.rng, self.fresh = vae.eval(), data, rng, fresh
        self.count = len(data) - held_back
        self.choose = choose or (lambda size, stored: self.rng.integers(0, stored, size))
        self.latents = torch.empty(0)
        self.filled = 0

    def batch(self, size: int) -> tuple[Indices, Tensor]:
        """Returns indices of images and their latents [size, C, h, w]."""
        fresh = size if self.filled < 4 * size else self.fresh or max(1, round(FRESH_SHARE * size))
        fresh = min(fresh, self.count - self.filled)
        if fresh:
            self._encode(fresh)
        new = np.arange(self.filled - fresh, self.filled)
        indices = np.concatenate([new, self.choose(size - fresh, self.filled)]) if fresh < size else new
        return indices, self.latents[indices].float()

    def _encode(self, count: int) -> None:
        latents = self.encode(np.arange(self.filled, self.filled + count))
        if not self.filled:
            self.latents = torch.empty(self.count, *latents.shape[1:], dtype=torch.float16)
        self.latents[self.filled : self.filled + count] = latents.half().cpu()
        self.filled += count

    @torch.no_grad()
    def encode(self, indices: Indices) -> Tensor:
        """Returns the scaled latents of images [B, C, h, w], without storing them."""
        images = self.data.images(indices).to(self.vae.device, memory_format=torch.channels_last)
        latents: Tensor = self.vae.encode(images).latents * self.vae.config.scaling_factor
        return latents
