"""Two images and two captions of the same words in another order, as in Winoground.

Source: Thrush et al. 2022, arXiv 2204.03162, whose text, image and group scores are computed here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch

from clipgen.bench.quality.edits import ATTEMPTS, swapped_colours, swapped_things
from clipgen.bench.quality.metrics import Metric, share
from clipgen.bench.quality.scene_encoder import SceneEncoder
from clipgen.world.grammar import caption
from clipgen.world.parse import parse
from clipgen.world.scene import Mix, Scene, held_out_cells
from clipgen.world.truth import is_true
from clipgen.world.unseen import Split, split_of, unseen

PART = "same words"
CHANCES = {"text": 0.25, "image": 0.25, "group": 1 / 6}
GROUP_FLOOR = 0.30
Quadruple = tuple[Scene, Scene, str, str]  # scene A, scene B, caption of A, caption of B


def quadruples(encoder: SceneEncoder, count: int, mix: Mix, split: Split) -> list[Metric]:
    """Returns the text, image and group scores of `count` quadruples: half swap two things, half swap their colours.

    Text score: each image prefers its own caption. Image score: each caption prefers its own image. Group: both.
    """
    two = replace(mix, kinds=(0.0, 1.0, 0.0), several=0.0)
    rows = [*islice(_quadruples(two, split), count - count // 2)]
    rows += islice(_quadruples(replace(two, coloured=1.0, styled=0.0), split, colours=True), count // 2)
    scenes_a, scenes_b, captions_a, captions_b = zip(*rows, strict=True)
    images = torch.stack([encoder.scene_features(scenes_a), encoder.scene_features(scenes_b)])
    texts = torch.stack([encoder.text_features(captions_a), encoder.text_features(captions_b)])
    similarities = torch.einsum("ind,cnd->nic", images, texts)  # [quadruple, image, caption]
    own = similarities.diagonal(dim1=1, dim2=2)
    other_caption = torch.stack([similarities[:, 0, 1], similarities[:, 1, 0]], dim=1)
    other_image = torch.stack([similarities[:, 1, 0], similarities[:, 0, 1]], dim=1)
    text, image = (own > other_caption).all(dim=1), (own > other_image).all(dim=1)
    hits = {"text": text, "image": image, "group": text & image}
    return [
        share(PART, name, hits[name].tolist(), chance=chance, floor=GROUP_FLOOR if name == "group" else None)
        for name, chance in CHANCES.items()
    ]


def _quadruples(mix: Mix, split: Split, *, colours: bool = False) -> Iterator[Quadruple]:
    """Yields pairs of unseen scenes that differ by a swap, with captions of the same words.

    Both scenes realise the same held-out cell, so a scene is skipped if the swap itself removes it (role, colour).
    """
    for scene in unseen(mix, split, stream=3):
        rng = random.Random(scene.seed)
        swapped = (swapped_colours if colours else swapped_things)(scene, rng, mix)
        if swapped is None or all(cell[0] in ("role", "colour") for cell in held_out_cells(scene)):
            continue
        if any(split_of(cell) != split for cell in held_out_cells(swapped)):
            continue
        if captions := _captions_of_the_same_words(scene, swapped, rng):
            yield (scene, swapped, *captions)


def _captions_of_the_same_words(scene: Scene, other: Scene, rng: random.Random) -> tuple[str, str] | None:
    for _ in range(ATTEMPTS):
        wording = rng.random()
        a, b = (caption(each, random.Random(wording)) for each in (scene, other))
        if _sorted_words(a) == _sorted_words(b) and not is_true(parse(b), scene) and not is_true(parse(a), other):
            return a, b
    return None


def _sorted_words(text: str) -> list[str]:
    return sorted(text.replace(",", "").split())
