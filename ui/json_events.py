"""The events of a job as JSON objects, in the format that `clipgen --json` prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from clipgen.compare import Comparison, VariantStep, comparison_row
from clipgen.errors import ClipgenError
from clipgen.hashing import sha256_of
from clipgen.report.comparison import verdicts

from .job_events import ComparedImage, FinishedImage, JobStopped, Loading, Waiting
from .worker import Worker

SCHEMA = "clipgen-events/1"
JsonEvent = dict[str, Any]


class EventLog:
    """Builds the JSON events of one job: each has a type and the seconds since the start of the job.

    `data` is what the last event, the envelope, will contain.
    """

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.data: dict[str, Any] = {}

    def event(self, kind: str, **fields: Any) -> JsonEvent:
        """Returns a JSON event of a type."""
        return {"type": kind, "t": round(time.monotonic() - self.start, 3), **fields}


def generate(worker: Worker, values: Mapping[str, Any], session: str) -> Iterator[JsonEvent]:
    """Yields the JSON events of a job that generates images; an error is reported in the envelope, not raised."""

    def events(log: EventLog) -> Iterator[JsonEvent]:
        settings = worker.build_settings(values)
        yield log.event(
            "start", schema=SCHEMA, clipgen=version("clipgen"), settings=settings.to_dict(), images=settings.images
        )
        count = 0
        for event in worker.generate(settings, session):
            count += isinstance(event, FinishedImage)
            yield to_json(log, event)
        log.data = {"pictures": count}

    yield from _with_envelope(events)


def compare(
    worker: Worker, values: Mapping[str, Any], judge: Any, comparison: Comparison, session: str
) -> Iterator[JsonEvent]:
    """Yields the JSON events of a comparison; the envelope contains the rows and the verdicts."""

    def events(log: EventLog) -> Iterator[JsonEvent]:
        rows = []
        for event in worker.compare(worker.build_settings(values), judge, comparison, session):
            if isinstance(event, ComparedImage):
                rows.append(comparison_row(event.variant, event.scorers))
            yield to_json(log, event)
        log.data = {
            "rows": [{**row.to_dict(), "path": None} for row in rows],
            "verdicts": [verdict.to_dict() for verdict in verdicts(rows)] if rows else [],
        }

    yield from _with_envelope(events)


def _with_envelope(events: Callable[[EventLog], Iterator[JsonEvent]]) -> Iterator[JsonEvent]:
    """Yields events and, last, the envelope: whether the job succeeded, its exit code, its data or its error."""
    log, error = EventLog(), None
    try:
        yield from events(log)
    except ClipgenError as raised:
        error = raised
    yield log.event(
        "envelope",
        schema="envelope/1",
        ok=error is None,
        exit=0 if error is None else error.exit_code,
        data=log.data,
        error=None if error is None else error.to_dict(),
    )


def to_json(log: EventLog, event: Any) -> JsonEvent:
    """Returns an event of the worker as a JSON event."""
    match event:
        case Waiting(position):
            return log.event("waiting", place=position)
        case Loading(model, percent):
            return log.event("loading", what=model, done=percent, total=100)
        case JobStopped():
            return log.event("stopped")
        case FinishedImage():
            return _image(log, event)
        case ComparedImage(variant, image, _):
            return {**_image(log, image), "variant": variant.name}
        case VariantStep(name, step):
            return {**_step(log, step), "variant": name}
    return _step(log, event)


def _step(log: EventLog, step: Any) -> JsonEvent:
    return log.event(
        "step",
        image=step.image,
        step=step.index + 1,
        steps=step.steps,
        eta=step.eta and round(step.eta, 2),
        similarity=step.similarity,
        percentile=step.percentile,
    )


def _image(log: EventLog, image: FinishedImage) -> JsonEvent:
    result = image.result
    return log.event(
        "image",
        image=result.index,
        seed=result.seed,
        prompt=result.settings.prompt,
        file={"path": str(image.path), "orig_name": image.path.name, "meta": {"_type": "gradio.FileData"}},
        sha256=sha256_of(image.path),
        clip=None if result.clip is None else result.clip.to_dict(),
        warnings=[note.to_dict() for note in result.warnings],
        seconds=round(result.seconds, 3),
    )
