"""One-factor pairs: does a picture prefer its caption to the same caption with one thing changed?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from clipgen.bench.quality.edits import EDITS, Edit, pair_of
from clipgen.bench.quality.eye import Eye
from clipgen.bench.quality.figures import Figure, share
from clipgen.world.scene import Mix, Scene
from clipgen.world.unseen import Split, unseen

PART = "one factor"


def one_factor(eye: Eye, count: int, mix: Mix, split: Split) -> list[Figure]:
    """Returns how often the true caption wins, for each kind of change, and how well one cosine tells all of them.

    The latter is the area under the curve of true captions against false ones, whichever picture they belong to.
    """
    figures, true_ones, false_ones = [], [], []
    for name, edit in EDITS.items():
        scenes, true, false = zip(*islice(_pairs(edit, replace(mix, **edit.mix), split), count), strict=True)
        images = eye.images(scenes)
        own, other = ((images * eye.texts(texts)).sum(dim=1).tolist() for texts in (true, false))
        wins = [a > b for a, b in zip(own, other, strict=True)]
        figures.append(share(PART, name, wins, chance=0.5, floor=edit.floor))
        true_ones += own
        false_ones += other
    return [*figures, Figure(PART, "one threshold, AUC", area(true_ones, false_ones), len(true_ones), chance=0.5)]


def _pairs(edit: Edit, mix: Mix, split: Split) -> Iterator[tuple[Scene, str, str]]:
    """Yields unseen scenes that have something to change, each with its true and its false caption."""
    for scene in unseen(mix, split, stream=2):
        if pair := pair_of(scene, edit, mix, random.Random(scene.seed)):
            yield (scene, *pair)


def area(above: list[float], below: list[float]) -> float:
    """Returns how often a number of the first list is larger than one of the second, ties counted half."""
    import numpy as np

    ordered = np.sort(np.array(below))
    less, most = (np.searchsorted(ordered, above, side=side) for side in ("left", "right"))
    return float((less + most).mean() / (2 * len(below)))
