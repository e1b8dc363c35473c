"""Scenes for measurement only: each contains a held-out cell, so no training image is like it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Literal

from clipgen.world.holdout import u
from clipgen.world.scene import Mix, Scene, held_out_cells, sample_any_scene

Split = Literal["dev", "test"]
SPLITS: tuple[Split, ...] = ("dev", "test")
DEV_SHARE = 0.25
FIRST_SEEDS: dict[Split, int] = {"dev": 3_000_000_000, "test": 4_000_000_000}  # above every seed used in training


def split_of(cell: tuple[str, ...]) -> Split:
    """Returns the split of a held-out cell. Choices are made on "dev"; "test" is run once per release."""
    return "dev" if u("split", *cell) < DEV_SHARE else "test"


def unseen(mix: Mix, split: Split = "dev", *, stream: int = 0) -> Iterator[Scene]:
    """Yields scenes that contain held-out cells of one split and none of the other, without end.

    Args:
        mix: Distribution of the scenes.
        split: "dev" or "test".
        stream: 0 to 9. The same stream always yields the same scenes; two streams have no scene in common.
    """
    for seed in count(FIRST_SEEDS[split] + 100_000_000 * stream):
        scene = sample_any_scene(random.Random(seed), seed, mix)
        held = held_out_cells(scene)
        if held and all(split_of(cell) == split for cell in held):
            yield scene
