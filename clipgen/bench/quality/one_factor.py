"""One-factor pairs: is an image more similar to its caption than to the same caption with one factor changed?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from clipgen.bench.quality.edits import EDITS, Edit, caption_pair
from clipgen.bench.quality.metrics import Metric, share
from clipgen.bench.quality.scene_encoder import SceneEncoder
from clipgen.world.scene import Mix, Scene
from clipgen.world.unseen import Split, unseen

PART = "one factor"


def one_factor(encoder: SceneEncoder, count: int, mix: Mix, split: Split) -> list[Metric]:
    """Returns for each kind of edit how often the true caption wins, and the AUC of the similarity over all pairs.

    The AUC compares true captions with false ones across images: it measures the similarity as an absolute score.
    """
    metrics: list[Metric] = []
    true_similarities: list[float] = []
    false_similarities: list[float] = []
    for name, edit in EDITS.items():
        pairs = islice(_pairs(edit, replace(mix, **edit.mix), split), count)
        scenes, true_captions, false_captions = zip(*pairs, strict=True)
        images = encoder.scene_features(scenes)
        true = (images * encoder.text_features(true_captions)).sum(dim=1).tolist()
        false = (images * encoder.text_features(false_captions)).sum(dim=1).tolist()
        wins = [a > b for a, b in zip(true, false, strict=True)]
        metrics.append(share(PART, name, wins, chance=0.5, floor=edit.floor))
        true_similarities += true
        false_similarities += false
    auc = area_under_curve(true_similarities, false_similarities)
    return [*metrics, Metric(PART, "one threshold, AUC", auc, len(true_similarities), chance=0.5)]


def _pairs(edit: Edit, mix: Mix, split: Split) -> Iterator[tuple[Scene, str, str]]:
    """Yields unseen scenes to which the edit applies, with a true and a false caption each."""
    for scene in unseen(mix, split, stream=2):
        if pair := caption_pair(scene, edit, mix, random.Random(scene.seed)):
            yield (scene, *pair)


def area_under_curve(positives: list[float], negatives: list[float]) -> float:
    """Returns the area under the ROC curve: how often a positive exceeds a negative, ties counted half."""
    import numpy as np

    ordered = np.sort(np.array(negatives))
    below, below_or_equal = (np.searchsorted(ordered, positives, side=side) for side in ("left", "right"))
    return float((below + below_or_equal).mean() / (2 * len(negatives)))
