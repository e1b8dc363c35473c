"""Training images: rendered scenes in a memory-mapped file, captioned from their seeds."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clipgen.train.render_file import RenderFile
from clipgen.world.grammar import caption
from clipgen.world.scene import Mix, Scene, sample_scene

Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


class Images(Protocol):
    """A captioned data set: `pixels` is uint8 [count, size, size, 3]."""

    @property
    def pixels(self) -> Bytes:
        """All images."""
        ...

    def __len__(self) -> int: ...

    def caption(self, index: int, rng: random.Random, *, complete: bool = False) -> str:
        """Returns a caption of an image, drawn at random; a `complete` one names all that is known of the image."""
        ...

    def images(self, indices: Indices) -> Tensor:
        """Returns images as float [B, 3, size, size] in [-1, 1]."""
        ...


def held_back(data: Images, most: int) -> int:
    """Returns how many images, the last ones, are kept for measuring: an eighth of them, `most` at most."""
    return min(most, max(1, len(data) // 8))


@dataclass(frozen=True)
class Renders:
    """Scenes with the seeds first_seed, first_seed + 1 ... and their images, uint8 [count, size, size, 3]."""

    pixels: Bytes
    first_seed: int
    mix: Mix

    def __len__(self) -> int:
        return len(self.pixels)

    @classmethod
    def open(cls, file: RenderFile, count: int) -> Renders:
        """Maps the first `count` images of a file, or as many as it has."""
        shape = (min(count, len(file)), file.size, file.size, 3)
        return cls(np.memmap(file.pixels, np.uint8, "r", shape=shape), file.first_seed, file.mix)

    def scene(self, index: int) -> Scene:
        """Returns the scene of an image."""
        return sample_scene(self.first_seed + index, self.mix)

    def caption(self, index: int, rng: random.Random, *, complete: bool = False) -> str:
        """Returns a caption of an image, drawn at random; a `complete` one names every detail."""
        return caption(self.scene(index), rng, complete=complete)

    def images(self, indices: Indices) -> Tensor:
        """Returns images as float [B, 3, size, size] in [-1, 1]."""
        order = np.argsort(indices)  # reading in file order is faster
        images = np.empty((len(indices), *self.pixels.shape[1:]), np.uint8)
        images[order] = self.pixels[indices[order]]
        return to_float(torch.from_numpy(images))


class CachedFeatures:
    """Features [B, ...] of images by index, computed once per image by `compute` and kept on the CPU."""

    def __init__(self, compute: Callable[[Indices], Tensor]) -> None:
        self._compute = compute
        self._features: dict[int, Tensor] = {}

    @torch.no_grad()
    def __call__(self, indices: Indices) -> Tensor:
        """Returns the features of some images, on the CPU."""
        if missing := [i for i in dict.fromkeys(indices.tolist()) if i not in self._features]:
            self._features |= dict(zip(missing, self._compute(np.array(missing)).cpu(), strict=True))
        return torch.stack([self._features[i] for i in indices.tolist()])


def to_float(images: Tensor) -> Tensor:
    """Converts uint8 [B, H, W, 3] to float [B, 3, H, W] in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1
