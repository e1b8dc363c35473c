"""Guided against unguided from the same noise, and against the best of as many as the guided one's time buys.

Or the dial: the same noise steered more and less.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, cast

from clipgen.errors import SettingsError
from clipgen.pipeline import inputs
from clipgen.report.comparison import Row, opinion
from clipgen.sampling.cancellation import IsCancelled, never_cancelled
from clipgen.settings.checks import LOCAL
from clipgen.settings.settings import Settings, unguided

if TYPE_CHECKING:
    from clipgen.clip.encoder import ClipEncoder
    from clipgen.clip.score import Score, Scorer
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Result, Step

MOST = 64  # pictures that one comparison draws at most for best-of
GUIDED, UNGUIDED = "guided", "unguided"
NOTCHES = {"quarter": 0.25, "half": 0.5, GUIDED: 1.0, "double": 2.0}  # of the dial, by clip_guidance_scale
WARM_UP = 2  # steps nobody times: what a first run loads and compiles counts for no arm


@dataclass(frozen=True)
class Panel:
    """Who looks at the arms: the CLIP that guides, and one that does not, None where there is none."""

    guide: Scorer
    judge: Scorer | None


@dataclass(frozen=True)
class Arm:
    """One arm's picture, how many were drawn for it and how long that took in all."""

    name: str
    result: Result
    pictures: int
    seconds: float


@dataclass(frozen=True)
class Heard:
    """One step on the way to an arm."""

    arm: str
    step: Step


def panel_of(pipe: Pipeline, settings: Settings, judge: str | None) -> Panel:
    """Returns who guides and who judges: without `judge` the model's own judge, or its own CLIP where others guide.

    Raises SettingsError if nothing guides, and what loading a CLIP raises.
    """
    named = settings.clip_models[:-1] if settings.guard == "two-key" else settings.clip_models
    own = pipe.scorer
    guide = load_scorer(named[0], pipe.encoder) if named else own
    if guide is None:
        raise SettingsError(f"model '{settings.model}' brings no CLIP: name one with --clip-model", field="clip_models")
    if (judge := inputs.judge_of(settings, judge)) is not None:
        return Panel(guide, load_scorer(judge, pipe.encoder))
    return Panel(guide, own if inputs.own_clip(settings.model) not in inputs.guides_of(settings) else None)


def load_scorer(name: str, load: Callable[[str], ClipEncoder]) -> Scorer:
    """Returns what scores by a CLIP that is on this machine; raises ModelNotFound, and what `load` raises."""
    from clipgen.clip.score import Scorer, read_captions
    from clipgen.models.find import find_clip

    return Scorer(load(name), read_captions(), find_clip(name, offline=True).path)


def contest(
    pipe: Pipeline, settings: Settings, panel: Panel, way: Way, is_cancelled: IsCancelled = never_cancelled
) -> Iterator[Heard | Arm]:
    """Yields the arms of one picture, the unguided one first, and before each of them its steps.

    Everything goes one picture at a time. Closing the iterator stops the work; `is_cancelled` is asked inside the steps
    too, and raises Cancelled.
    """
    yield from _draw(pipe, settings.replace(steps=min(WARM_UP, settings.steps or WARM_UP)), "warming up", is_cancelled)
    plain = yield from _draw(pipe, unguided(settings), UNGUIDED, is_cancelled)
    yield Arm(UNGUIDED, plain, 1, plain.seconds)
    yield from way.draw(pipe, settings, panel, plain, is_cancelled)


def _against_best(
    pipe: Pipeline, settings: Settings, panel: Panel, plain: Result, is_cancelled: IsCancelled
) -> Iterator[Heard | Arm]:
    """Yields guided and best-of.

    Best-of chooses by the guide among the unguided picture and as many more as fit into the seconds that guiding
    takes longer, at least one: seeds as guidance `pick` draws them.
    """
    from clipgen.guidance.pick import candidate_seeds

    guided = yield from _draw(pipe, settings, GUIDED, is_cancelled)
    yield Arm(GUIDED, guided, 1, guided.seconds)
    count = 1 + more(plain.seconds, guided.seconds)
    began = monotonic()
    best, best_score, name = plain, score(panel.guide, plain), f"best of {count}"
    for seed in candidate_seeds(plain.seed, count)[1:]:
        other = yield from _draw(pipe, plain.settings.replace(seed=seed), name, is_cancelled)
        if (other_score := score(panel.guide, other)).similarity > best_score.similarity:
            best, best_score = other, other_score
    yield Arm(name, best, count, plain.seconds + monotonic() - began)


def _turned(
    pipe: Pipeline, settings: Settings, panel: Panel, plain: Result, is_cancelled: IsCancelled
) -> Iterator[Heard | Arm]:
    """Yields the notches of the dial, the weakest first; what passes the strongest pull is left out."""
    for name, factor in NOTCHES.items():
        scale = factor * settings.clip_guidance_scale
        if scale <= LOCAL.part[1]:
            guided = yield from _draw(pipe, settings.replace(clip_guidance_scale=scale), name, is_cancelled)
            yield Arm(name, guided, 1, guided.seconds)


def _check_dial(settings: Settings) -> None:
    """Raises SettingsError for settings without a strength that the dial could turn."""
    if settings.budget is not None or "clip" not in settings.guidance.split("+"):
        given = settings.guidance if settings.budget is None else f"budget {settings.budget:g}"
        raise SettingsError(
            f"the dial turns how strongly clip pulls: it needs guidance clip, got {given}", field="guidance"
        )


@dataclass(frozen=True)
class Way:
    """What is held against the unguided picture: how many arms there are with it at most, and how they are drawn.

    `check` raises SettingsError for settings that it cannot be done with.
    """

    arms: int
    check: Callable[[Settings], None]
    draw: Callable[[Pipeline, Settings, Panel, Result, IsCancelled], Iterator[Heard | Arm]]


DUEL = Way(3, lambda settings: None, _against_best)
DIAL = Way(1 + len(NOTCHES), _check_dial, _turned)


def more(plain: float, guided: float) -> int:
    """Returns how many more unguided pictures of `plain` seconds fit into what guiding takes longer, 1 to MOST - 1."""
    return min(MOST - 1, max(1, int((guided - plain) / plain)))


def score(scorer: Scorer, result: Result) -> Score:
    """Returns a CLIP's score of a finished picture by its own prompt."""
    from clipgen.text import plain_text

    text = plain_text(result.settings.prompt, result.settings.prompt_syntax)
    return scorer.score(result.pixels[None], [text])[0]


def row_of(arm: Arm, panel: Panel) -> Row:
    """Returns what the panel says of an arm."""
    judge = None if panel.judge is None else opinion(score(panel.judge, arm.result))
    guide = opinion(score(panel.guide, arm.result))
    return Row(arm.name, arm.pictures, arm.seconds, guide, judge, arm.result.seed, arm.result.path)


def _draw(pipe: Pipeline, settings: Settings, arm: str, is_cancelled: IsCancelled) -> Generator[Heard, None, Result]:
    """Yields the steps of one picture and returns it."""
    from clipgen.pipeline.result import Result

    results = []
    with closing(cast("Generator[Step | Result, None, None]", pipe.generate(settings, is_cancelled))) as events:
        for event in events:
            if isinstance(event, Result):
                results.append(event)
            else:
                yield Heard(arm, event)
    return results[0]
