"""The runs of a drawing command, and the unguided twins that --compare adds."""

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
    """One Settings to draw.

    Attributes:
        settings: What to draw.
        group: --keep selects among the runs of a group.
        job: The id of a batch job, which has one picture.
        replayed: The fields that a picture sets, not the user; models that they name are never downloaded.
        twin: The run is the unguided twin of the run after it.
    """

    settings: Settings
    group: Hashable
    job: str | None = None
    replayed: frozenset[str] = frozenset()
    twin: bool = False

    @property
    def label(self) -> str:
        """The end of its files' names."""
        return UNGUIDED if self.twin else ""


def single(runs: Sequence[Run]) -> Iterator[Run]:
    """Yields a run of one picture for each picture; picture k of a run has seed + k."""
    for run in runs:
        settings = with_seed(run.settings)
        for k in range(settings.images):
            yield replace(run, settings=settings.replace(seed=((settings.seed or 0) + k) % (MAX_SEED + 1), images=1))


def with_twins(runs: Sequence[Run]) -> list[Run]:
    """Returns the runs with an unguided twin before each guided one; raises SettingsError if none is guided."""
    if not any(run.settings.guided for run in runs):
        raise SettingsError("--compare needs CLIP guidance: add -c 0.3 or --guidance", field="compare")
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
    """Keeps the similarities of an unguided twin and adds them to the steps of the guided run after it."""

    def __init__(self) -> None:
        self._similarities: dict[tuple[int, int], float | None] = {}  # by image and step
        self._run: Run | None = None

    def add(self, step: Step, run: Run) -> Step:
        """Returns a step of a run, with `similarity_unguided` if the run's twin came just before it."""
        if run.twin:
            self._similarities = self._similarities if self._run is run else {}
            self._run = run
            self._similarities[step.image, step.index] = step.similarity
            return step
        if self._run is None or without_guidance(run.settings) != self._run.settings:
            return step
        return replace(step, similarity_unguided=self._similarities.get((step.image, step.index)))
