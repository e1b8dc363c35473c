"""SceneEval: the share of images that show all that their prompt asks for, by category, seen and unseen.

An image passes if the judge, which never guides, and the model's own CLIP both answer all questions about it rightly
(questions.py). `ceiling` is the same for true renders of the unseen scenes after the autoencoder, `chance` the same
for images of other prompts of the category.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from torch import Tensor

from clipgen.bench.quality.drawing import PictureTest
from clipgen.bench.quality.metrics import Metric, share
from clipgen.bench.quality.questions import Questions, image_features, wrong_prompts
from clipgen.bench.quality.round_trip import round_trips
from clipgen.bench.quality.scene_prompts import CATEGORIES, ScenePrompt, scene_prompts
from clipgen.world.scene import Mix
from clipgen.world.unseen import Split

PART = "scenes"
WHO = {"judge and CLIP": slice(None), "judge": slice(0, 1), "CLIP": slice(1, 2)}  # parts of Answers
Answers = tuple[dict[str, bool], ...]  # by the judge and by CLIP; empty for a broken image


@dataclass(frozen=True)
class SceneResult:
    """One prompt with the answers of the judge and of CLIP to each question about its image.

    `best` are the answers about a true render after the autoencoder; None without one.
    """

    prompt: ScenePrompt
    answers: Answers
    best: Answers | None = None

    @property
    def passed(self) -> bool:
        """Whether both answer all questions rightly."""
        return passes(self.answers)

    def to_dict(self) -> dict[str, Any]:
        """Returns prompt, verdict and the failed questions as JSON values."""
        failed = [[name for name, right in answers.items() if not right] for answers in self.answers]
        judge, clip = failed or [["broken image"]] * 2
        prompt = self.prompt
        values = {name: getattr(prompt, name) for name in ("id", "category", "seen", "seed")}
        cells = [list(cell) for cell in prompt.cells]
        return {
            **values, "cells": cells, "prompt": prompt.text(), "passed": self.passed, "judge": judge, "clip": clip,
        }  # fmt: skip


def passes(answers: Iterable[dict[str, bool]]) -> bool:
    """Returns whether all answers are right; False without any."""
    answers = list(answers)
    return bool(answers) and all(all(each.values()) for each in answers)


class CategoryQuestions:
    """The prompts of one category with the questions about each, by the judge and by CLIP."""

    def __init__(self, test: PictureTest, prompts: Sequence[ScenePrompt]) -> None:
        self.encoders, self.prompts = test.encoders, prompts
        self.questions = [
            [Questions(encoder, prompt.text(), wrong_prompts(prompt, test.names)) for encoder in self.encoders]
            for prompt in prompts
        ]

    def ask(self, images: Iterable[Tensor | None], shift: int = 0) -> list[Answers]:
        """Returns the answers about images [3, H, W], one per prompt, about the prompt `shift` places further on."""
        return [self._ask_one(pixels, (k + shift) % len(self.prompts)) for k, pixels in enumerate(images)]

    def _ask_one(self, pixels: Tensor | None, k: int) -> Answers:
        if pixels is None:
            return ()
        pairs = zip(self.encoders, self.questions[k], strict=True)
        return tuple(questions.answers(image_features(encoder, pixels)) for encoder, questions in pairs)


def scene_eval(
    test: PictureTest, category: str, number: int, split: Split, mix: Mix, *, ceiling: bool
) -> tuple[list[SceneResult], list[Metric]]:
    """Draws and judges the prompts of a category; `mix` is the distribution that the denoiser was trained on."""
    prompts = scene_prompts(category, number, split, mix)
    asked = CategoryQuestions(test, prompts)
    images = list(test.draw(category, [(prompt.text(), prompt.seed) for prompt in prompts]))
    best: list[Answers | None] = [None] * len(prompts)
    if ceiling:  # unseen prompts come first
        scenes = [prompt.scene for prompt in prompts if not prompt.seen] or [prompt.scene for prompt in prompts]
        best[: len(scenes)] = asked.ask(round_trips(test.pipe.family, scenes, test.pipe.defaults["width"]))
    results = [SceneResult(*row) for row in zip(prompts, asked.ask(images), best, strict=True)]
    chance = mean(map(passes, asked.ask(images, shift=1))) if len(prompts) > 1 else None
    return results, _metrics(category, results, chance)


def _metrics(category: str, results: Sequence[SceneResult], chance: float | None) -> list[Metric]:
    spec, metrics = CATEGORIES[category], []
    for seen in (False, True):
        rows = [result for result in results if result.prompt.seen == seen]
        if rows:
            floor = spec.floor if not seen or not spec.held_out else None
            name, hits = f"{category}, {'seen' if seen else 'unseen'}", [row.passed for row in rows]
            metrics.append(share(PART, name, hits, chance=chance, floor=floor, ceiling=_ceiling(rows)))
    return metrics


def _ceiling(rows: Sequence[SceneResult], who: slice = slice(None)) -> float | None:
    """Returns the share of true renders that pass by the judge and CLIP, or by one of them; None without renders."""
    hits = [passes(row.best[who]) for row in rows if row.best is not None]
    return mean(hits) if hits else None


def overall(results: Sequence[SceneResult]) -> list[Metric]:
    """Returns the means of the categories, unseen and seen, by both, the judge and CLIP, and each question's share."""
    metrics = []
    for seen in (False, True):
        rows = [result for result in results if result.prompt.seen == seen]
        categories = [
            [row for row in rows if row.prompt.category == category]
            for category in dict.fromkeys(row.prompt.category for row in rows)
        ]
        part = f"mean of {len(categories)} categories, {'seen' if seen else 'unseen'}"
        for name, who in WHO.items() if categories else ():
            value = mean(mean(passes(row.answers[who]) for row in each) for each in categories)
            ceilings = [ceiling for each in categories if (ceiling := _ceiling(each, who)) is not None]
            ceiling = mean(ceilings) if len(ceilings) == len(categories) else None
            metrics.append(Metric(part, name, value, len(rows), ceiling=ceiling))
    questions = dict.fromkeys(name for row in results for answers in row.answers for name in answers)
    return [*metrics, *(_question(results, name, who) for name in questions for who in ("judge", "CLIP"))]


def _question(results: Sequence[SceneResult], question: str, who: str) -> Metric:
    """Returns the share of the right answers of one CLIP to one question."""
    hits = [each[question] for row in results for each in row.answers[WHO[who]] if question in each]
    best = [each[question] for row in results for each in (row.best or ())[WHO[who]] if question in each]
    return share(f"question, {who}", question, hits, ceiling=mean(best) if best else None)
