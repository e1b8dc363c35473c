"""Compares guided and unguided images of one prompt from the same start noise.

There are two comparisons: BEST_OF_N adds the best of as many unguided images as fit into the time that guidance
costs, SCALE_SWEEP generates with several values of clip_guidance_scale.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, cast

from clipgen.errors import SettingsError
from clipgen.pipeline import inputs
from clipgen.report.comparison import ComparisonRow, summarize
from clipgen.sampling.cancellation import IsCancelled, never_cancelled
from clipgen.settings.checks import LOCAL
from clipgen.settings.settings import Settings, without_guidance

if TYPE_CHECKING:
    from clipgen.clip.encoder import ClipEncoder
    from clipgen.clip.score import Score, Scorer
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Result, Step

MAX_BEST_OF = 64  # unguided images that one comparison generates at most
GUIDED, UNGUIDED = "guided", "unguided"
SCALES = {"quarter": 0.25, "half": 0.5, GUIDED: 1.0, "double": 2.0}  # variant -> factor of clip_guidance_scale
WARM_UP_STEPS = 2  # untimed steps before the comparison, in which a first run loads and compiles


@dataclass(frozen=True)
class Scorers:
    """The CLIP that guides, and the CLIP that judges; `judge` is None if every CLIP at hand guides."""

    guide: Scorer
    judge: Scorer | None


@dataclass(frozen=True)
class Variant:
    """The image of one variant, the number of images generated to get it, and the seconds for all of them."""

    name: str
    result: Result
    images: int
    seconds: float


@dataclass(frozen=True)
class VariantStep:
    """One denoising step of the variant called `variant`."""

    variant: str
    step: Step


def choose_scorers(pipe: Pipeline, settings: Settings, judge: str | None) -> Scorers:
    """Returns the CLIP that guides `settings` and a CLIP that does not.

    Without `judge`, the model's `judge` folder judges, or the model's own CLIP if other CLIPs guide. Raises
    SettingsError if there is no CLIP that guides, and the errors of loading one.
    """
    named = settings.clip_models[:-1] if settings.guard == "two-key" else settings.clip_models
    own = pipe.scorer
    guide = load_scorer(named[0], pipe.encoder) if named else own
    if guide is None:
        raise SettingsError(f"model '{settings.model}' has no CLIP: name one with --clip-model", field="clip_models")
    if (judge := inputs.choose_judge(settings, judge)) is not None:
        return Scorers(guide, load_scorer(judge, pipe.encoder))
    own_guides = own is None or own.folder is None or own.folder.resolve() in inputs.guiding_clips(settings)
    return Scorers(guide, None if own_guides else own)


def load_scorer(name: str, load: Callable[[str], ClipEncoder]) -> Scorer:
    """Returns the scorer of a CLIP that is already on this machine; raises ModelNotFound, and the errors of `load`."""
    from clipgen.clip.score import Scorer, read_captions
    from clipgen.models.find import find_clip

    return Scorer(load(name), read_captions(), find_clip(name, offline=True).path)


def run_comparison(
    pipe: Pipeline,
    settings: Settings,
    scorers: Scorers,
    comparison: Comparison,
    is_cancelled: IsCancelled = never_cancelled,
) -> Iterator[VariantStep | Variant]:
    """Yields the steps of each variant and then the variant; the unguided one is the first.

    Images are generated one at a time. Closing the iterator stops the comparison; so does `is_cancelled`, which is
    called within each step and raises Cancelled.
    """
    warm_up = settings.replace(steps=min(WARM_UP_STEPS, settings.steps or WARM_UP_STEPS))
    yield from _generate(pipe, warm_up, "warming up", is_cancelled)
    plain = yield from _generate(pipe, without_guidance(settings), UNGUIDED, is_cancelled)
    yield Variant(UNGUIDED, plain, 1, plain.seconds)
    yield from comparison.generate(pipe, settings, scorers, plain, is_cancelled)


def _best_of_n(
    pipe: Pipeline, settings: Settings, scorers: Scorers, plain: Result, is_cancelled: IsCancelled
) -> Iterator[VariantStep | Variant]:
    """Yields the guided image and the best of N unguided ones.

    N unguided images take as long as the guided one, but N >= 2. The guiding CLIP chooses among them; their seeds are
    those of guidance `pick`.
    """
    from clipgen.guidance.pick import candidate_seeds

    guided = yield from _generate(pipe, settings, GUIDED, is_cancelled)
    yield Variant(GUIDED, guided, 1, guided.seconds)
    count = 1 + extra_images(plain.seconds, guided.seconds)
    start = monotonic()
    best, best_score, name = plain, score(scorers.guide, plain), f"best of {count}"
    for seed in candidate_seeds(plain.seed, count)[1:]:
        other = yield from _generate(pipe, plain.settings.replace(seed=seed), name, is_cancelled)
        if (other_score := score(scorers.guide, other)).similarity > best_score.similarity:
            best, best_score = other, other_score
    yield Variant(name, best, count, plain.seconds + monotonic() - start)


def _scale_sweep(
    pipe: Pipeline, settings: Settings, scorers: Scorers, plain: Result, is_cancelled: IsCancelled
) -> Iterator[VariantStep | Variant]:
    """Yields an image for each factor of SCALES, the smallest first, as far as the scale stays within its limit."""
    for name, factor in SCALES.items():
        scale = factor * settings.clip_guidance_scale
        if scale <= LOCAL.part[1]:
            guided = yield from _generate(pipe, settings.replace(clip_guidance_scale=scale), name, is_cancelled)
            yield Variant(name, guided, 1, guided.seconds)


def _check_scale_sweep(settings: Settings) -> None:
    """Raises SettingsError if the settings do not use clip_guidance_scale."""
    if settings.budget is not None or "clip" not in settings.guidance.split("+"):
        given = settings.guidance if settings.budget is None else f"budget {settings.budget:g}"
        raise SettingsError(
            f"the dial varies clip_guidance_scale: it needs guidance clip, got {given}", field="guidance"
        )


@dataclass(frozen=True)
class Comparison:
    """One kind of comparison.

    Attributes:
        max_variants: The largest number of variants, the unguided one included.
        check: Raises SettingsError for settings that cannot be compared so.
        generate: Yields the variants other than the unguided one.
    """

    max_variants: int
    check: Callable[[Settings], None]
    generate: Callable[[Pipeline, Settings, Scorers, Result, IsCancelled], Iterator[VariantStep | Variant]]


BEST_OF_N = Comparison(3, lambda settings: None, _best_of_n)
SCALE_SWEEP = Comparison(1 + len(SCALES), _check_scale_sweep, _scale_sweep)


def extra_images(plain: float, guided: float) -> int:
    """Returns how many unguided images of `plain` seconds fit into `guided` - `plain`, at least 1."""
    return min(MAX_BEST_OF - 1, max(1, int((guided - plain) / plain)))


def score(scorer: Scorer, result: Result) -> Score:
    """Returns the CLIP score of a finished image with its own prompt."""
    from clipgen.text import plain_text

    text = plain_text(result.settings.prompt, result.settings.prompt_syntax, result.settings.long_prompt)
    return scorer.score(result.pixels[None], [text])[0]


def comparison_row(variant: Variant, scorers: Scorers) -> ComparisonRow:
    """Returns the scores and the cost of a variant as a row of the comparison's table."""
    judge = None if scorers.judge is None else summarize(score(scorers.judge, variant.result))
    guide = summarize(score(scorers.guide, variant.result))
    result = variant.result
    return ComparisonRow(variant.name, variant.images, variant.seconds, guide, judge, result.seed, result.path)


def _generate(
    pipe: Pipeline, settings: Settings, variant: str, is_cancelled: IsCancelled
) -> Generator[VariantStep, None, Result]:
    """Yields the steps of one image and returns its result."""
    from clipgen.pipeline.result import Result

    results = []
    with closing(cast("Generator[Step | Result, None, None]", pipe.generate(settings, is_cancelled))) as events:
        for event in events:
            if isinstance(event, Result):
                results.append(event)
            else:
                yield VariantStep(variant, event)
    return results[0]
