"""How fast this machine draws with a model: seconds a FLOP, by the pictures it has finished."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import TYPE_CHECKING

from clipgen.settings.settings import Settings

if TYPE_CHECKING:
    from clipgen.pipeline.pipeline import Pipeline

KEPT = 5  # pictures that the pace is the median of


class Pace:
    """The seconds that the last pictures of one model took."""

    def __init__(self) -> None:
        self._drawn: deque[tuple[Settings, float]] = deque(maxlen=KEPT)

    def hear(self, settings: Settings, seconds: float) -> None:
        """Takes the seconds of a finished picture."""
        self._drawn.append((settings, seconds))

    def seconds(self, pipe: Pipeline, work: float) -> float | None:
        """Returns the seconds that so many FLOP will take, None before the first picture."""
        paces = [seconds / work_of(pipe, settings) for settings, seconds in list(self._drawn)]
        return work * median(paces) if paces else None


def work_of(pipe: Pipeline, settings: Settings) -> float:
    """Returns the FLOP of one picture; its open fields must be filled."""
    from clipgen.guidance.budget import choice_of, work

    return work(settings, pipe.facts(settings), choice_of(settings))
