"""What each way of steering gains, and what it costs, by a CLIP that steers nothing: `clipgen bench gain`.

Captions of scenes that nothing trained on, one seed each, the same for all arms. `more steps` and `best of 2` are the
rivals that need no guidance: they spend the same time in the plainest way. Gains are paired by prompt, with a
bootstrap interval over prompts (Efron 1979); seconds are those of the processor, all threads together.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Any

from clipgen.bench.timing import clocked, machine
from clipgen.settings.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from clipgen.clip.score import Scorer
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Result

OFF, BEST = "off", "best of 2"
ARMS: dict[str, dict[str, Any]] = {
    OFF: {},
    "clip": {"guidance": "clip"},
    "clip, own decoder": {"guidance": "clip", "guide_decoder": "full"},
    "more steps": {"steps": 2.0},
    BEST: {"images": 2},
    "pick of 4": {"guidance": "pick", "candidates": 4},
    "clip and pick of 4": {"guidance": "clip+pick", "candidates": 4},
    "steer, 2 particles": {"guidance": "steer", "particles": 2, "eta": 1.0},
}
FIRST_SCENE = 1_800_000_000  # far from the scenes that anything trains on
RESAMPLES = 2_000


@dataclass(frozen=True)
class Row:
    """One arm: its price in pictures without guidance, and what judge and guide say, as means of the cosine.

    `gain` is the judge's against no guidance; `least` and `most` hold it in 95 of 100 resamplings of the prompts.
    """

    arm: str
    price: float
    judge: float
    gain: float
    least: float
    most: float
    guide: float


def prompts(count: int) -> list[str]:
    """Returns captions of the first scenes from FIRST_SCENE on, of the kind that the denoiser of storybook learns."""
    from clipgen.train.tiers import TIERS
    from clipgen.world.grammar import caption
    from clipgen.world.scene import sample_scene

    seeds = range(FIRST_SCENE, FIRST_SCENE + count)
    return [caption(sample_scene(seed, TIERS["cpu"].narrow), random.Random(seed)) for seed in seeds]


def measure(pipe: Pipeline, judge: Scorer, texts: Sequence[str], arms: Sequence[str] = tuple(ARMS)) -> list[Row]:
    """Draws every prompt by every arm, in turn, after a first picture that nobody times."""
    pipe.run(_settings(pipe, texts[0], 0, OFF))
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    said: dict[str, list[tuple[float, float]]] = {arm: [] for arm in arms}
    for seed, text in enumerate(texts):
        for arm in arms:
            results: list[Result] = []
            settings = _settings(pipe, text, seed, arm)
            seconds[arm].append(clocked(partial(_draw, pipe, settings, results)).processor)
            best = max(results, key=_by_guide)
            said[arm].append((judge.score(best.pixels[None], [text])[0].similarity, _by_guide(best)))
    return [_row(arm, seconds, said) for arm in arms]


def _settings(pipe: Pipeline, text: str, seed: int, arm: str) -> Settings:
    """Returns the settings of an arm; a number of steps counts in the model's own."""
    plain = Settings(text, seed=seed, prompt_syntax="plain", guard="off").with_defaults(pipe.defaults)
    fields = dict(ARMS[arm])
    if "steps" in fields:
        fields["steps"] = round(fields["steps"] * (plain.steps or 0))
    return plain.replace(**fields)


def _draw(pipe: Pipeline, settings: Settings, into: list[Result]) -> None:
    into += pipe.run(settings)


def _by_guide(result: Result) -> float:
    assert result.clip is not None, "gain is measured with a model that brings its CLIP"
    return result.clip.similarity


def _row(arm: str, seconds: dict[str, list[float]], said: dict[str, list[tuple[float, float]]]) -> Row:
    gains = [ours[0] - plain[0] for ours, plain in zip(said[arm], said[OFF], strict=True)]
    least, most = interval(gains)
    price = mean(seconds[arm]) / mean(seconds[OFF])
    judged, guided = (mean(row[k] for row in said[arm]) for k in (0, 1))
    return Row(arm, price, judged, mean(gains), least, most, guided)


def interval(gains: Sequence[float], resamples: int = RESAMPLES) -> tuple[float, float]:
    """Returns between what the mean of numbers lies in 95 of 100 resamplings of them, always the same ones."""
    import numpy as np

    drawn: npt.NDArray[np.float64] = np.random.default_rng(0).choice(gains, (resamples, len(gains))).mean(axis=1)
    least, most = np.quantile(drawn, (0.025, 0.975))
    return float(least), float(most)


COLUMNS = ("arm", "price", "judge", "gain", "95 of 100", "guide")


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Returns the cells of COLUMNS, a row an arm."""
    return [
        (
            row.arm,
            f"{row.price:.2f}",
            f"{row.judge:.3f}",
            f"{row.gain:+.3f}",
            f"{row.least:+.3f} to {row.most:+.3f}",
            f"{row.guide:.3f}",
        )
        for row in rows
    ]


def report(rows: Sequence[Row], count: int) -> dict[str, Any]:
    """Returns the measurement with its protocol, JSON-safe."""
    return {"machine": machine(), "prompts": count, "first_scene": FIRST_SCENE, "rows": [asdict(row) for row in rows]}
