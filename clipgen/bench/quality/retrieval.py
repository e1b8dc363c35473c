"""Retrieval among scenes of held-out combinations: image by caption, caption by image, caption among its edits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice
from statistics import mean, median

import torch
from torch import Tensor

from clipgen.bench.quality.edits import wrong_captions
from clipgen.bench.quality.metrics import Metric, share
from clipgen.bench.quality.scene_encoder import SceneEncoder
from clipgen.world.grammar import caption
from clipgen.world.parse import parse
from clipgen.world.scene import Mix, Scene
from clipgen.world.truth import is_true
from clipgen.world.unseen import Split, unseen

FLOORS = {1: 0.60, 5: 0.90, 10: None}
HARD_FLOOR = 0.40
EDITS = 4  # false captions per image in the hard gallery


def retrieval(encoder: SceneEncoder, count: int, mix: Mix, split: Split) -> list[Metric]:
    """Returns recall and median rank in both directions over `count` scenes, and recall among one-factor edits.

    A caption that is also true of another scene counts as correct for that scene.
    """
    scenes = list(islice(unseen(mix, split, stream=1), count))
    captions = [caption(scene, random.Random(scene.seed)) for scene in scenes]
    correct = truth_matrix(captions, scenes)
    images = encoder.scene_features(scenes)
    similarities = encoder.text_features(captions) @ images.T  # [captions, images]
    metrics = _recalls("picture of a caption", similarities, correct)
    metrics += _recalls("caption of a picture", similarities.T, correct.T)
    # hard gallery: the captions of all scenes and EDITS false captions of each
    edits = [text for scene in scenes for text in wrong_captions(scene, EDITS, mix)]
    similarities = torch.cat([similarities.T, images @ encoder.text_features(edits).T], dim=1)  # [images, captions]
    correct = torch.cat([correct.T, truth_matrix(edits, scenes).T], dim=1)
    hits = [rank == 1 for rank in first_ranks(similarities, correct)]
    chance = mean(correct.sum(dim=1).tolist()) / correct.shape[1]
    return [*metrics, share("caption among edits", "R@1", hits, chance=chance, floor=HARD_FLOOR)]


def truth_matrix(captions: Sequence[str], scenes: Sequence[Scene]) -> Tensor:
    """Returns which captions are true of which scenes, as booleans [captions, scenes]."""
    parsed = [parse(text) for text in captions]
    return torch.tensor([[is_true(statement, scene) for scene in scenes] for statement in parsed])


def first_ranks(similarities: Tensor, correct: Tensor) -> list[int]:
    """Returns for each row of [N, M] the rank of the most similar correct column, counted from 1."""
    best = similarities.masked_fill(~correct.to(similarities.device), -2.0).max(dim=1, keepdim=True).values
    ranks: list[int] = (1 + (similarities > best).sum(dim=1)).tolist()
    return ranks


def _recalls(part: str, similarities: Tensor, correct: Tensor) -> list[Metric]:
    ranks, correct_per_row = first_ranks(similarities, correct), mean(correct.sum(dim=1).tolist())
    metrics = [
        share(part, f"R@{k}", [rank <= k for rank in ranks], chance=k * correct_per_row / len(ranks), floor=floor)
        for k, floor in FLOORS.items()
    ]
    return [*metrics, Metric(part, "median rank", median(ranks), len(ranks), chance=len(ranks) / 2)]
