"""Measures what each guidance method gains and costs, judged by a CLIP that does not guide: `clipgen bench gain`.

The prompts are captions of scenes outside all training data, one seed per prompt, the same for every variant.
`more steps` and `best of 2` are baselines without guidance that cost about as much time. Gains are paired by prompt,
with a bootstrap interval over the prompts (Efron 1979). Costs are CPU seconds summed over all threads.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Any

from clipgen.bench.timing import describe_machine, time_call
from clipgen.settings.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from clipgen.clip.score import Scorer
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Result

OFF, BEST = "off", "best of 2"
VARIANTS: dict[str, dict[str, Any]] = {  # name -> Settings fields; a float for `steps` multiplies the model's default
    OFF: {},
    "clip": {"guidance": "clip"},
    "clip, full decoder": {"guidance": "clip", "guide_decoder": "full"},
    "more steps": {"steps": 2.0},
    BEST: {"images": 2},
    "pick of 4": {"guidance": "pick", "candidates": 4},
    "clip and pick of 4": {"guidance": "clip+pick", "candidates": 4},
    "steer, 2 particles": {"guidance": "steer", "particles": 2, "eta": 1.0},
}
Variants = Mapping[str, dict[str, Any]]
FIRST_SCENE = 1_800_000_000  # scene seeds from here on are used by no training stage
RESAMPLES = 2_000


@dataclass(frozen=True)
class GainRow:
    """Results of one variant, as means over the prompts.

    `cost` is CPU time relative to no guidance, `judge` and `guide` are the cosine similarities of the judging and of
    the guiding CLIP, `gain` is the judge's similarity minus that without guidance, with the 95% interval low to high.
    `passed` is the share of images that pass a test, `passed_gain` its gain with interval; 0 without a test.
    """

    variant: str
    cost: float
    judge: float
    gain: float
    low: float
    high: float
    guide: float
    passed: float
    passed_gain: float
    passed_low: float
    passed_high: float


@dataclass(frozen=True)
class Outcome:
    """One image of a variant: CPU seconds, the similarities of the judge and of the guiding CLIP, and the test."""

    seconds: float
    judge: float
    guide: float
    passed: bool


def prompts(count: int) -> list[str]:
    """Returns captions of `count` scenes with seeds from FIRST_SCENE on, sampled as for training the denoiser."""
    from clipgen.train.tiers import TIERS
    from clipgen.world.grammar import caption
    from clipgen.world.scene import sample_scene

    seeds = range(FIRST_SCENE, FIRST_SCENE + count)
    return [caption(sample_scene(seed, TIERS["cpu"].narrow), random.Random(seed)) for seed in seeds]


def measure(
    pipe: Pipeline,
    judge: Scorer,
    texts: Sequence[str],
    variants: Variants = VARIANTS,
    is_passed: Callable[[int, Tensor], bool] = lambda index, pixels: False,
    on_progress: Callable[[str], None] = lambda line: None,
) -> list[GainRow]:
    """Generates every prompt with every variant, which alternate, and returns a row per variant.

    A first image that is not timed warms up the model.

    Args:
        pipe: The model.
        judge: A CLIP that does not guide.
        texts: The prompts.
        variants: Settings fields by name; must contain "off".
        is_passed: A test of an image [3, H, W] in [0, 1] of the prompt with an index.
        on_progress: Receives a line after each prompt.
    """
    pipe.run(_settings(pipe, texts[0], 0, {}))
    outcomes: dict[str, list[Outcome]] = {variant: [] for variant in variants}
    for index, text in enumerate(texts):
        for variant, fields in variants.items():
            results: list[Result] = []
            settings = _settings(pipe, text, index, fields)
            seconds = time_call(partial(_generate, pipe, settings, results)).cpu
            best = max(results, key=_guide_similarity)
            judged = judge.score(best.pixels[None], [text])[0].similarity
            passed = is_passed(index, best.pixels)
            outcomes[variant].append(Outcome(seconds, judged, _guide_similarity(best), passed))
        on_progress(f"guidance: {index + 1} of {len(texts)} prompts")
    return [_row(variant, outcomes[variant], outcomes[OFF]) for variant in variants]


def at_equal_time(rows: Sequence[GainRow], time: float) -> Variants:
    """Returns variants that all take `time` times as long as no guidance, by their number of steps.

    `rows` are measurements of VARIANTS. "off" takes the place of "more steps".
    """
    costs = {row.variant: row.cost for row in rows if "steps" not in VARIANTS[row.variant]}
    return {variant: {**VARIANTS[variant], "steps": time / cost} for variant, cost in costs.items()}


def _settings(pipe: Pipeline, text: str, seed: int, variant: Mapping[str, Any]) -> Settings:
    """Returns the settings of a variant; a float for `steps` is a multiple of the model's default."""
    plain = Settings(text, seed=seed, prompt_syntax="plain", guard="off").with_defaults(pipe.defaults)
    fields = dict(variant)
    if "steps" in fields:
        fields["steps"] = max(1, round(fields["steps"] * (plain.steps or 0)))
    return plain.replace(**fields)


def _generate(pipe: Pipeline, settings: Settings, results: list[Result]) -> None:
    results += pipe.run(settings)


def _guide_similarity(result: Result) -> float:
    assert result.clip is not None, "gain is measured with a model that brings its CLIP"
    return result.clip.similarity


def _row(variant: str, outcomes: Sequence[Outcome], plain: Sequence[Outcome]) -> GainRow:
    pairs = list(zip(outcomes, plain, strict=True))
    gains = [ours.judge - other.judge for ours, other in pairs]
    passed_gains = [float(ours.passed) - float(other.passed) for ours, other in pairs]
    cost = mean(each.seconds for each in outcomes) / mean(each.seconds for each in plain)
    return GainRow(
        variant, cost, mean(each.judge for each in outcomes), mean(gains), *interval(gains),
        mean(each.guide for each in outcomes), mean(each.passed for each in outcomes), mean(passed_gains),
        *interval(passed_gains),
    )  # fmt: skip


def interval(values: Sequence[float], resamples: int = RESAMPLES) -> tuple[float, float]:
    """Returns the 95% bootstrap interval of the mean of `values`; the resampling has a fixed seed."""
    import numpy as np

    means: npt.NDArray[np.float64] = np.random.default_rng(0).choice(values, (resamples, len(values))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


COLUMNS = ("variant", "cost", "judge", "gain", "95% interval", "guide")


def table(rows: Sequence[GainRow]) -> list[tuple[str, ...]]:
    """Returns the cells of COLUMNS, one tuple per variant."""
    return [
        (
            row.variant,
            f"{row.cost:.2f}",
            f"{row.judge:.3f}",
            f"{row.gain:+.3f}",
            f"{row.low:+.3f} to {row.high:+.3f}",
            f"{row.guide:.3f}",
        )
        for row in rows
    ]


def report(rows: Sequence[GainRow], count: int) -> dict[str, Any]:
    """Returns the rows with the measuring conditions as JSON-serialisable values."""
    return {
        "machine": describe_machine(),
        "prompts": count,
        "first_scene": FIRST_SCENE,
        "rows": [asdict(row) for row in rows],
    }
