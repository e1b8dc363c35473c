"""Batches for CLIP in which knowing the objects is not enough: false captions, and twins of images.

A twin is a scene with two things swapped or one count changed, rendered into the same batch. Image and twin are each
other's hardest negative, in images and in captions (the task of Winoground, Thrush et al. 2022, arXiv 2204.03162).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipgen.train.data import Renders, to_float
from clipgen.train.negatives import hard_pair
from clipgen.world.render import render
from clipgen.world.scene import COLOURLESS, Scene

TWIN_EDITS = ("swap", "swap", "swap", "count")
TWIN_SHARE = 4  # one image in so many is a twin


@dataclass(frozen=True)
class Row:
    """An image [3, H, W] in [-1, 1], its scene, a true caption and a false one (None for twins)."""

    image: Tensor
    scene: Scene
    true: str
    false: str | None


class HardBatches:
    """Draws from the first `count` renders, difficult ones more often, and renders twins of some."""

    def __init__(self, renders: Renders, count: int, seed: int) -> None:
        self.renders, self.numbers, self.words = renders, np.random.default_rng(seed), random.Random(seed)
        self.shares = np.cumsum([_difficulty(renders.scene(i)) for i in range(count)])
        self.names = renders.mix.names

    def draw(self, size: int) -> list[Row]:
        """Returns the rows of one batch in random order."""
        rows: list[Row] = []
        while len(rows) < size // TWIN_SHARE * 2:
            rows += self._twins()
        while len(rows) < size:
            rows.append(self._row())
        self.words.shuffle(rows)
        return rows[:size]

    def _twins(self) -> Iterator[Row]:
        image, scene = self._image()
        true, edit = hard_pair(scene, self.words, self.names, TWIN_EDITS)
        yield Row(image, scene, true, None)
        if edit:
            twin, caption = edit
            pixels = np.array(render(twin, image.shape[-1]))
            yield Row(to_float(torch.from_numpy(pixels)[None])[0], twin, caption, None)

    def _row(self) -> Row:
        image, scene = self._image()
        true, edit = hard_pair(scene, self.words, self.names)
        return Row(image, scene, true, edit[1] if edit else None)

    def _image(self) -> tuple[Tensor, Scene]:
        index = int(np.searchsorted(self.shares, self.numbers.integers(0, self.shares[-1]), side="right"))
        return self.renders.images(np.array([index]))[0], self.renders.scene(index)


def _difficulty(scene: Scene) -> int:
    """Returns the weight of a scene: several things, recoloured things and colourless styles are harder to name."""
    return len(scene.things) + any(thing.colour for thing in scene.things) + (scene.style in COLOURLESS)
