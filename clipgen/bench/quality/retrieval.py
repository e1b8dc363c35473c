"""Retrieval among unseen compositions: the caption of a picture, the picture of a caption."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice
from statistics import mean, median

import torch
from torch import Tensor

from clipgen.bench.quality.edits import wrong_captions
from clipgen.bench.quality.eye import Eye
from clipgen.bench.quality.figures import Figure, share
from clipgen.world.grammar import caption
from clipgen.world.parse import parse
from clipgen.world.scene import Mix, Scene
from clipgen.world.truth import is_true
from clipgen.world.unseen import Split, unseen

FLOORS = {1: 0.60, 5: 0.90, 10: None}
HARD_FLOOR = 0.40
EDITS = 4


def retrieval(eye: Eye, count: int, mix: Mix, split: Split) -> list[Figure]:
    """Searches `count` pictures by their captions and the other way, then captions among their edits too.

    A caption that is true of another picture counts as that one's too.
    """
    scenes = list(islice(unseen(mix, split, stream=1), count))
    texts = [caption(scene, random.Random(scene.seed)) for scene in scenes]
    true = truths(texts, scenes)
    images, words = eye.images(scenes), eye.texts(texts)
    cosines = words @ images.T  # [caption, picture]
    figures = _recalls("picture of a caption", cosines, true) + _recalls("caption of a picture", cosines.T, true.T)
    wrong = [wrong_captions(scene, EDITS, mix) for scene in scenes]
    edits = [text for texts in wrong for text in texts]
    gallery = torch.cat([cosines.T, images @ eye.texts(edits).T], dim=1)  # [picture, caption]
    right = torch.cat([true.T, truths(edits, scenes).T], dim=1)
    hits = [rank == 1 for rank in ranks(gallery, right)]
    chance = mean(right.sum(dim=1).tolist()) / gallery.shape[1]
    return [*figures, share("caption among edits", "R@1", hits, chance=chance, floor=HARD_FLOOR)]


def truths(texts: Sequence[str], scenes: Sequence[Scene]) -> Tensor:
    """Returns which captions are true of which scenes, as booleans [T, S]."""
    said = [parse(text) for text in texts]
    return torch.tensor([[is_true(each, scene) for scene in scenes] for each in said])


def ranks(cosines: Tensor, true: Tensor) -> list[int]:
    """Returns where the best right answer of each row stands, 1 for the first, of cosines and booleans [N, M]."""
    best = cosines.masked_fill(~true.to(cosines.device), -2.0).max(dim=1, keepdim=True).values
    places: list[int] = (1 + (cosines > best).sum(dim=1)).tolist()
    return places


def _recalls(part: str, cosines: Tensor, true: Tensor) -> list[Figure]:
    places, several = ranks(cosines, true), mean(true.sum(dim=1).tolist())
    found = [
        share(part, f"R@{k}", [place <= k for place in places], chance=k * several / len(places), floor=floor)
        for k, floor in FLOORS.items()
    ]
    return [*found, Figure(part, "median rank", median(places), len(places), chance=len(places) / 2)]
