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
Answers = tuple[dict[str, bool], ...]  # by the judge and by CLIP; empty for a broken image


@dataclass(frozen=True)
class SceneResult:
    """One prompt with the answers of the judge and of CLIP to each question about its image."""

    prompt: ScenePrompt
    answers: Answers

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
    results = [SceneResult(*pair) for pair in zip(prompts, asked.ask(images), strict=True)]
    best = None
    if ceiling:
        measured = [prompt for prompt in prompts if not prompt.seen or not CATEGORIES[category].held_out]
        side = test.pipe.defaults["width"]
        answers = asked.ask(round_trips(test.pipe.family, [prompt.scene for prompt in measured], side))
        best = mean(map(passes, answers))
    chance = mean(map(passes, asked.ask(images, shift=1))) if len(prompts) > 1 else None
    return results, _metrics(category, results, chance, best)


def _metrics(
    category: str, results: Sequence[SceneResult], chance: float | None, ceiling: float | None
) -> list[Metric]:
    spec, metrics = CATEGORIES[category], []
    for seen in (False, True):
        hits = [result.passed for result in results if result.prompt.seen == seen]
        if hits:
            floor = spec.floor if not seen or not spec.held_out else None
            name = f"{category}, {'seen' if seen else 'unseen'}"
            metrics.append(share(PART, name, hits, chance=chance, floor=floor, ceiling=None if seen else ceiling))
    return metrics


def overall(results: Sequence[SceneResult]) -> list[Metric]:
    """Returns the means of the categories, unseen and seen, by both, the judge and CLIP, and each question's share."""
    metrics = []
    for seen in (False, True):
        rows = [result for result in results if result.prompt.seen == seen]
        for name, who in (("judge and CLIP", slice(None)), ("judge", slice(0, 1)), ("CLIP", slice(1, 2))):
            shares = [
                mean(passes(row.answers[who]) for row in rows if row.prompt.category == category)
                for category in dict.fromkeys(row.prompt.category for row in rows)
            ]
            if shares:
                part = f"mean of {len(shares)} categories, {'seen' if seen else 'unseen'}"
                metrics.append(Metric(part, name, mean(shares), len(rows)))
    questions = dict.fromkeys(name for row in results for answers in row.answers for name in answers)
    for name in questions:
        hits = [
            all(answers[name] for answers in row.answers) for row in results if row.answers and name in row.answers[0]
        ]
        metrics.append(share("question", name, hits))
    return metrics
