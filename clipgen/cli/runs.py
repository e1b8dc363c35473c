"""What a drawing command is to draw, one Run after the other, and the unguided twins that --compare adds."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clipgen.errors import SettingsError
from clipgen.settings.checks import MAX_SEED
from clipgen.settings.settings import Settings, with_seed, without_guidance

if TYPE_CHECKING:
    from clipgen.pipeline.result import Step

UNGUIDED = "-unguided"


@dataclass(frozen=True)
class Run:
    """One Settings to draw; --keep chooses among a `group`; `job` is a batch's id of its one picture.

    `replayed` = a picture named the model, not a person, `replayed_clips` those that guide; `twin` = it is drawn for
    comparison with the run after it.
    """

    settings: Settings
    group: Hashable
    job: str | None = None
    replayed: bool = False
    replayed_clips: bool = False
    twin: bool = False

    @property
    def label(self) -> str:
        """What its files' names get at their end."""
        return UNGUIDED if self.twin else ""


def single(runs: Sequence[Run]) -> Iterator[Run]:
    """Yields runs of one picture each: image k of a run is seed + k alone."""
    for run in runs:
        settings = with_seed(run.settings)
        for k in range(settings.images):
            yield replace(run, settings=settings.replace(seed=((settings.seed or 0) + k) % (MAX_SEED + 1), images=1))


def with_twins(runs: Sequence[Run]) -> list[Run]:
    """Returns runs with the twin of each guided one before it; raises SettingsError where nothing is guided."""
    if not any(run.settings.guided for run in runs):
        raise SettingsError("--compare needs guidance by CLIP: add -c 0.3 or --guidance", field="compare")
    twins: list[Run] = []
    for run in runs:
        if not run.settings.guided:
            twins.append(run)
            continue
        settings = with_seed(run.settings)
        twins.append(
            replace(run, settings=without_guidance(settings), group=(run.group, UNGUIDED), job=None, twin=True)
        )
        twins.append(replace(run, settings=settings))
    return twins


class TwinSimilarities:
    """Holds the twin's similarities, to tell them again beside the guided picture's."""

    def __init__(self) -> None:
        self._twin: dict[tuple[int, int], float | None] = {}
        self._of: Run | None = None

    def hear(self, step: Step, run: Run) -> Step:
        """Takes a step of a run and returns it, with `similarity_unguided` if its twin came just before."""
        if run.twin:
            self._twin = self._twin if self._of is run else {}
            self._of = run
            self._twin[step.image, step.index] = step.similarity
            return step
        if self._of is None or without_guidance(run.settings) != self._of.settings:
            return step
        return replace(step, similarity_unguided=self._twin.get((step.image, step.index)))
