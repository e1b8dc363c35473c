"""From what happens in the workshop to what the page shows: views, and what is known of a run on its way."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Any

from . import stage
from .curve import Fit, Points, curve
from .stage import Card
from .workshop import Picture

FRAME_SECONDS = 0.25  # a preview comes at most so often


@dataclass(frozen=True)
class View:
    """What the page is to show now: None leaves it as it is; `cards` are the pictures of the run so far."""

    stage: str | None = None
    busy: bool = True
    message: str | None = None
    cards: tuple[Card, ...] | None = None
    tone: str = "error"


class Watch:
    """What is known of a run on its way: the fit of each picture to its words, and when the page saw the last frame."""

    def __init__(self) -> None:
        self.points: dict[int, list[Fit]] = {}
        self._seen = 0.0

    def hear(self, step: Any, shown: int, arm: str = "", twin: Points = ()) -> View | None:
        """Takes a step and returns the view of it, None where one was shown just before; `shown` = whose preview."""
        line = self.points.setdefault(step.image, [])
        if step.similarity is not None:
            line.append(Fit(step.index, step.similarity, step.percentile))
        if step.image != shown or (monotonic() - self._seen < FRAME_SECONDS and step.index < step.steps - 1):
            return None
        self._seen = monotonic()
        picture = stage.data_uri(step.preview())
        drawn = curve(line, step.steps, twin)
        return View(stage.drawing(picture, step.index + 1, step.steps, step.eta, drawn, arm))


def card_of(picture: Picture, points: Points, twin: Points = ()) -> Card:
    """Returns a finished picture as the page keeps it."""
    result = picture.result
    return Card(
        path=str(picture.shown),
        settings=result.settings.to_dict(),
        seed=result.seed,
        seconds=result.seconds,
        clip=None if result.clip is None else result.clip.to_dict(),
        notes=result.warnings,
        curve=tuple(points),
        twin=tuple(twin),
        likeness=result.likeness,
    )
