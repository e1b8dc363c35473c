"""What drawn pictures are worth: does a CLIP that steers nothing see in them what was asked, and not something else?

A picture passes if the judge prefers its prompt to each of four prompts that differ in one thing. Renders of the same
scenes are the ceiling: where the judge fails on those, it is the judge that cannot tell. By kinds of prompts, as
GenEval has them (Ghosh et al. 2023, arXiv 2310.11513); not comparable with it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clipgen.bench.quality.edits import wrong_captions
from clipgen.bench.quality.eye import Eye
from clipgen.bench.quality.figures import Figure, share
from clipgen.settings.settings import Settings
from clipgen.world.grammar import caption
from clipgen.world.scene import Mix
from clipgen.world.unseen import Split, unseen

if TYPE_CHECKING:
    from clipgen.clip.score import Scorer
    from clipgen.pipeline.pipeline import Pipeline

PART = "pictures"
ONE, TWO = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
PLAIN = {"several": 0.0, "coloured": 0.0, "styled": 0.0, "plain": 0.0, "timed": 0.0, "sized": 0.0}
KINDS: Mapping[str, Mapping[str, Any]] = {
    "one thing in a place": {**PLAIN, "kinds": ONE},
    "two things": {**PLAIN, "kinds": TWO},
    "several of a thing": {**PLAIN, "kinds": ONE, "several": 1.0},
    "a coloured thing": {**PLAIN, "kinds": ONE, "coloured": 1.0},
    "a style": {**PLAIN, "kinds": ONE, "styled": 1.0},
}
RIVALS = 4


@dataclass(frozen=True)
class Drawing:
    """Who draws, who judges, and how many prompts of each kind."""

    pipe: Pipeline
    judge: Scorer
    count: int


def pictures(drawing: Drawing, mix: Mix, split: Split) -> list[Figure]:
    """Draws prompts of unseen scenes of each kind, one seed each, and lets the judge read them."""
    figures, count, judge = [], drawing.count, Eye(drawing.judge.encoder)
    for stream, (kind, shares) in enumerate(KINDS.items(), start=5):
        scenes = list(islice(unseen(replace(mix, **shares), split, stream=stream), count))
        texts = [caption(scene, random.Random(scene.seed)) for scene in scenes]
        wrong = [wrong_captions(scene, RIVALS, mix) for scene in scenes]
        drawn = passes(judge, _drawn(drawing.pipe, judge, texts), texts, wrong)
        ideal = passes(judge, judge.images(scenes), texts, wrong)
        chance = mean(1 / (1 + len(rivals)) for rivals in wrong)
        figures.append(share(PART, kind, drawn, chance=chance, ceiling=mean(ideal)))
    values = [figure.value for figure in figures]
    return [*figures, Figure(PART, "mean of the kinds", mean(values), count * len(KINDS))]


def passes(judge: Eye, images: Tensor, texts: Sequence[str], wrong: Sequence[Sequence[str]]) -> list[bool]:
    """Returns which pictures, by their unit vectors [N, D], are closer to their text than to every wrong one."""
    return [
        bool((cosines := judge.texts([text, *rivals]) @ image)[0] > cosines[1:].max())
        for image, text, rivals in zip(images, texts, wrong, strict=True)
    ]


@torch.no_grad()
def _drawn(pipe: Pipeline, judge: Eye, texts: Sequence[str]) -> Tensor:
    """Returns the judge's unit vectors [N, D] of pictures drawn of texts, picture k with seed k."""
    rows = []
    for seed, text in enumerate(texts):
        settings = Settings(text, seed=seed, prompt_syntax="plain", guard="off").with_defaults(pipe.defaults)
        rows.append(judge.encoder.image_features(pipe.run(settings)[0].pixels[None])[0])
    return torch.stack(rows)
