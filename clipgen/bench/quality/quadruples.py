"""Two pictures and two captions of the same words, as Winoground has them (Thrush et al. 2022, arXiv 2204.03162)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch

from clipgen.bench.quality.edits import TRIES, swapped_colours, swapped_things
from clipgen.bench.quality.eye import Eye
from clipgen.bench.quality.figures import Figure, share
from clipgen.world.grammar import caption
from clipgen.world.parse import parse
from clipgen.world.scene import Mix, Scene
from clipgen.world.truth import is_true
from clipgen.world.unseen import Split, held_out_cells, split_of, unseen

PART = "same words"
CHANCES = {"text": 0.25, "image": 0.25, "group": 1 / 6}
FLOOR = 0.30
Quadruple = tuple[Scene, Scene, str, str]


def quadruples(eye: Eye, count: int, mix: Mix, split: Split) -> list[Figure]:
    """Returns the text, image and group scores of `count` quadruples: half swap two things, half their colours.

    Text: both pictures prefer their own caption; image: both captions their own picture; group: both hold.
    """
    two = replace(mix, kinds=(0.0, 1.0, 0.0), several=0.0)
    found = [*islice(_quadruples(two, split), count - count // 2)]
    found += islice(_quadruples(replace(two, coloured=1.0, styled=0.0), split, colours=True), count // 2)
    first, second, one, other = zip(*found, strict=True)
    images = torch.stack([eye.images(first), eye.images(second)])
    words = torch.stack([eye.texts(one), eye.texts(other)])
    cosines = torch.einsum("ind,cnd->nic", images, words)  # [quadruple, picture, caption]
    own = cosines.diagonal(dim1=1, dim2=2)
    by_text = (own > torch.stack([cosines[:, 0, 1], cosines[:, 1, 0]], dim=1)).all(dim=1)
    by_image = (own > torch.stack([cosines[:, 1, 0], cosines[:, 0, 1]], dim=1)).all(dim=1)
    hits = {"text": by_text, "image": by_image, "group": by_text & by_image}
    return [
        share(PART, name, hits[name].tolist(), chance=chance, floor=FLOOR if name == "group" else None)
        for name, chance in CHANCES.items()
    ]


def _quadruples(mix: Mix, split: Split, *, colours: bool = False) -> Iterator[Quadruple]:
    """Yields pairs of scenes that nobody trained on, by a cell that both have, with captions of the same words."""
    for scene in unseen(mix, split, stream=3):
        rng = random.Random(scene.seed)
        swapped = (swapped_colours if colours else swapped_things)(scene, rng, mix)
        if swapped is None or all(cell[0] in ("role", "colour") for cell in held_out_cells(scene)):
            continue
        if any(split_of(cell) != split for cell in held_out_cells(swapped)):
            continue
        if texts := _same_words(scene, swapped, rng):
            yield (scene, swapped, *texts)


def _same_words(scene: Scene, other: Scene, rng: random.Random) -> tuple[str, str] | None:
    for _ in range(TRIES):
        wording = rng.random()
        one, two = (caption(each, random.Random(wording)) for each in (scene, other))
        if _words(one) == _words(two) and not is_true(parse(two), scene) and not is_true(parse(one), other):
            return one, two
    return None


def _words(text: str) -> list[str]:
    return sorted(text.replace(",", "").split())
