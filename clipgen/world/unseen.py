"""Scenes that nothing trained on: each realises a held-out cell. They are for measuring alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Literal

from clipgen.world.holdout import held_out, u
from clipgen.world.scene import Mix, Scene, _draw, cells

Split = Literal["dev", "test"]
SPLITS: tuple[Split, ...] = ("dev", "test")
DEV_SHARE = 0.25
FIRST_SEEDS: dict[Split, int] = {"dev": 3_000_000_000, "test": 4_000_000_000}  # far from all that is trained on


def split_of(cell: tuple[str, ...]) -> Split:
    """Returns the half that a held-out cell belongs to: choices are made on dev, test is run once a release."""
    return "dev" if u("split", *cell) < DEV_SHARE else "test"


def held_out_cells(scene: Scene) -> list[tuple[str, ...]]:
    """Returns the held-out cells that a scene realises."""
    return [cell for cell in cells(scene) if held_out(*cell)]


def unseen(mix: Mix, split: Split = "dev", *, stream: int = 0) -> Iterator[Scene]:
    """Yields scenes of a split without end, always the same ones; the streams 0 to 9 share none.

    Each realises at least one held-out cell, and none of the other split.
    """
    for seed in count(FIRST_SEEDS[split] + 100_000_000 * stream):
        scene = _draw(random.Random(seed), seed, mix)
        held = held_out_cells(scene)
        if held and all(split_of(cell) == split for cell in held):
            yield scene
