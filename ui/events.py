"""What happens to a job as JSON events, the same that `clipgen --json` prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from clipgen.compare import Heard, Way, row_of
from clipgen.errors import ClipgenError
from clipgen.image_file import digest_of
from clipgen.report.comparison import verdicts

from .workshop import Compared, Loading, Picture, Stopped, Waiting, Workshop

SCHEMA = "clipgen-events/1"
Event = dict[str, Any]


def generate(workshop: Workshop, values: Mapping[str, Any], visitor: str) -> Iterator[Event]:
    """Yields the events of a run as `clipgen --json` prints them, the envelope last; no error is raised."""

    def events(clock: Clock) -> Iterator[Event]:
        settings = workshop.settings(values)
        yield clock.event(
            "start", schema=SCHEMA, clipgen=version("clipgen"), settings=settings.to_dict(), images=settings.images
        )
        made = 0
        for event in workshop.draw(settings, visitor):
            made += isinstance(event, Picture)
            yield told(clock, event)
        clock.data = {"pictures": made}

    yield from _enveloped(events)


def compare(workshop: Workshop, values: Mapping[str, Any], judge: Any, way: Way, visitor: str) -> Iterator[Event]:
    """Yields the events of a comparison: steps, an image for each arm, and in the envelope rows and verdicts."""

    def events(clock: Clock) -> Iterator[Event]:
        rows = []
        for event in workshop.compare(workshop.settings(values), judge, way, visitor):
            if isinstance(event, Compared):
                rows.append(row_of(event.arm, event.panel))
            yield told(clock, event)
        said = [verdict.to_dict() for verdict in verdicts(rows)] if rows else []
        clock.data = {"rows": [{**row.to_dict(), "path": None} for row in rows], "verdicts": said}

    yield from _enveloped(events)


class Clock:
    """When a run began, and what its envelope will carry."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.data: dict[str, Any] = {}

    def event(self, kind: str, **fields: Any) -> Event:
        """Returns an event with its type and seconds."""
        return {"type": kind, "t": round(time.monotonic() - self.began, 3), **fields}


def _enveloped(events: Callable[[Clock], Iterator[Event]]) -> Iterator[Event]:
    clock, error = Clock(), None
    try:
        yield from events(clock)
    except ClipgenError as refused:
        error = refused
    failed = None if error is None else error.to_dict()
    code = 0 if error is None else error.exit_code
    yield clock.event("envelope", schema="envelope/1", ok=error is None, exit=code, data=clock.data, error=failed)


def told(clock: Clock, event: Any) -> Event:
    """Returns one thing that happened to a job as an event."""
    match event:
        case Waiting(place):
            return clock.event("waiting", place=place)
        case Loading(model, percent):
            return clock.event("loading", what=model, done=percent, total=100)
        case Stopped():
            return clock.event("stopped")
        case Picture():
            return _image(clock, event)
        case Compared(arm, picture, _):
            return {**_image(clock, picture), "arm": arm.name}
        case Heard(arm, step):
            return {**_step(clock, step), "arm": arm}
    return _step(clock, event)


def _step(clock: Clock, step: Any) -> Event:
    return clock.event(
        "step",
        image=step.image,
        step=step.index + 1,
        steps=step.steps,
        eta=step.eta and round(step.eta, 2),
        similarity=step.similarity,
        percentile=step.percentile,
    )


def _image(clock: Clock, picture: Picture) -> Event:
    result = picture.result
    return clock.event(
        "image",
        image=result.index,
        seed=result.seed,
        prompt=result.settings.prompt,
        file={"path": str(picture.shown), "orig_name": picture.shown.name, "meta": {"_type": "gradio.FileData"}},
        sha256=digest_of(picture.shown),
        clip=None if result.clip is None else result.clip.to_dict(),
        warnings=[note.to_dict() for note in result.warnings],
        withheld=False,
        seconds=round(result.seconds, 3),
    )
