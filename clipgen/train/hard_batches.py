"""Batches that cannot be told apart by what there is alone: pictures with false captions, and with twins.

A twin is a picture's scene with two things swapped or another number of one, drawn anew: in one batch with the first,
each is the other's hardest rival, in pictures and in words (what Winoground asks, Thrush et al. 2022).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipgen.train.data import Renders, to_unit
from clipgen.train.negatives import hard_pair
from clipgen.world.render import render
from clipgen.world.scene import COLOURLESS, Scene

TWIN_EDITS = ("swap", "swap", "swap", "count")
TWINS = 4  # one picture of so many is a twin


@dataclass(frozen=True)
class Row:
    """A picture [3, H, W] in [-1, 1], its scene, a true caption, and a false one; a twin's is the other's true one."""

    picture: Tensor
    scene: Scene
    true: str
    false: str | None


class HardBatches:
    """Draws from the first `count` renders, the harder to name oftener, and draws twins of some."""

    def __init__(self, renders: Renders, count: int, seed: int) -> None:
        self.renders, self.numbers, self.words = renders, np.random.default_rng(seed), random.Random(seed)
        self.shares = np.cumsum([_hardness(renders.scene(i)) for i in range(count)])
        self.names = renders.mix.names

    def draw(self, size: int) -> list[Row]:
        """Returns the rows of one batch, in any order."""
        rows: list[Row] = []
        while len(rows) < size // TWINS * 2:
            rows += self._twins()
        while len(rows) < size:
            rows.append(self._row())
        self.words.shuffle(rows)
        return rows[:size]

    def _twins(self) -> Iterator[Row]:
        picture, scene = self._picture()
        true, other = hard_pair(scene, self.words, self.names, TWIN_EDITS)
        yield Row(picture, scene, true, None)
        if other:
            twin, caption = other
            drawn = np.asarray(render(twin, picture.shape[-1]))
            yield Row(to_unit(torch.from_numpy(drawn.copy())[None])[0], twin, caption, None)

    def _row(self) -> Row:
        picture, scene = self._picture()
        true, other = hard_pair(scene, self.words, self.names)
        return Row(picture, scene, true, other[1] if other else None)

    def _picture(self) -> tuple[Tensor, Scene]:
        index = int(np.searchsorted(self.shares, self.numbers.integers(0, self.shares[-1]), side="right"))
        return self.renders.images(np.array([index]))[0], self.renders.scene(index)


def _hardness(scene: Scene) -> int:
    """Returns how often a picture is drawn: things beside others, in a dye and in a style without colours hide."""
    return len(scene.things) + any(thing.colour for thing in scene.things) + (scene.style in COLOURLESS)
