"""Prompt fidelity of generated images, judged by a CLIP that does not guide.

An image passes if the judge gives its prompt a higher similarity than each of four prompts that differ in one factor.
The same test on renders of the scenes is the ceiling: a failure there is the judge's. The kinds of prompts follow
GenEval (Ghosh et al. 2023, arXiv 2310.11513); the numbers are not comparable with GenEval's.
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
from clipgen.bench.quality.metrics import Metric, share
from clipgen.bench.quality.scene_encoder import SceneEncoder
from clipgen.settings.settings import Settings
from clipgen.world.grammar import caption
from clipgen.world.scene import Mix
from clipgen.world.unseen import Split, unseen

if TYPE_CHECKING:
    from clipgen.clip.score import Scorer
    from clipgen.pipeline.pipeline import Pipeline

PART = "generated images"
ONE, TWO = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)  # shares of scenes with one, two and three kinds of things
PLAIN = {"several": 0.0, "coloured": 0.0, "styled": 0.0, "plain": 0.0, "timed": 0.0, "sized": 0.0}
KINDS: Mapping[str, Mapping[str, Any]] = {  # kind of prompt -> fields of the scene Mix
    "one thing in a place": {**PLAIN, "kinds": ONE},
    "two things": {**PLAIN, "kinds": TWO},
    "several of a thing": {**PLAIN, "kinds": ONE, "several": 1.0},
    "a coloured thing": {**PLAIN, "kinds": ONE, "coloured": 1.0},
    "a style": {**PLAIN, "kinds": ONE, "styled": 1.0},
}
FIRST_STREAM = 5  # streams 0 to 4 of unseen scenes belong to the other parts of the benchmark
WRONG_PROMPTS = 4


@dataclass(frozen=True)
class GenerationTest:
    """The pipeline that is tested, the CLIP that judges, and the number of prompts per kind."""

    pipe: Pipeline
    judge: Scorer
    count: int


def generated_images(test: GenerationTest, mix: Mix, split: Split) -> list[Metric]:
    """Generates one image per prompt for every kind of prompt and returns the pass rates and their mean."""
    metrics, count, judge = [], test.count, SceneEncoder(test.judge.encoder)
    for stream, (kind, fields) in enumerate(KINDS.items(), start=FIRST_STREAM):
        scenes = list(islice(unseen(replace(mix, **fields), split, stream=stream), count))
        texts = [caption(scene, random.Random(scene.seed)) for scene in scenes]
        wrong = [wrong_captions(scene, WRONG_PROMPTS, mix) for scene in scenes]
        passed = prefers_prompt(judge, _generated_features(test.pipe, judge, texts), texts, wrong)
        ceiling = prefers_prompt(judge, judge.scene_features(scenes), texts, wrong)
        chance = mean(1 / (1 + len(others)) for others in wrong)
        metrics.append(share(PART, kind, passed, chance=chance, ceiling=mean(ceiling)))
    values = [metric.value for metric in metrics]
    return [*metrics, Metric(PART, "mean of the kinds", mean(values), count * len(KINDS))]


def prefers_prompt(
    judge: SceneEncoder, image_features: Tensor, texts: Sequence[str], wrong: Sequence[Sequence[str]]
) -> list[bool]:
    """Returns for each image [N, D] whether it is more similar to its text than to all of its wrong texts."""
    return [
        bool((similarities := judge.text_features([text, *others]) @ image)[0] > similarities[1:].max())
        for image, text, others in zip(image_features, texts, wrong, strict=True)
    ]


@torch.no_grad()
def _generated_features(pipe: Pipeline, judge: SceneEncoder, texts: Sequence[str]) -> Tensor:
    """Returns the judge's image features [N, D] of generated images; image k has seed k."""
    features = []
    for seed, text in enumerate(texts):
        settings = Settings(text, seed=seed, prompt_syntax="plain", guard="off").with_defaults(pipe.defaults)
        features.append(judge.encoder.image_features(pipe.run(settings)[0].pixels[None])[0])
    return torch.stack(features)
