"""Named endpoints for programs: what the page does, with Settings fields as inputs and JSON events as outputs."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import gradio as gr
from gradio.events import api as endpoint

from clipgen.contest import DIAL, DUEL, Heard, Way, row_of
from clipgen.errors import ClipgenError
from clipgen.image_file import digest_of
from clipgen.preset import list_presets
from clipgen.settings import FIELDS, Settings
from clipgen.words.command_line import command_line
from clipgen.words.verdict import verdicts

from . import ask
from .upload import read
from .workshop import Answer, Compared, Loading, Picture, Stopped, Waiting, Workshop

SCHEMA = "clipgen-events/1"
Event = dict[str, Any]
KINDS: Mapping[str, type] = {"int": int, "float": float, "bool": bool, "str": str, "tuple": list}


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


def info(workshop: Workshop, file: Any) -> dict[str, Any]:
    """Returns the settings inside an uploaded picture, or an error as the envelope carries it."""
    try:
        _, restored = read(workshop.shelf, file)
    except ClipgenError as error:
        return {"ok": False, "error": error.to_dict()}
    return {
        "ok": True,
        "source": restored.source,
        "settings": restored.settings.to_dict(),
        "command": command_line(restored.settings),
        "unknown": restored.unknown,
        "warnings": [note.to_dict() for note in restored.warnings],
    }


def answered(workshop: Workshop, build: Callable[[], Any], visitor: str) -> Any:
    """Returns the answer to a question about a picture, or an error as the envelope carries it."""
    try:
        events = list(workshop.ask(build(), workshop.model or workshop.house.models[0], visitor))
    except ClipgenError as error:
        return {"ok": False, "error": error.to_dict()}
    return events[-1].value if isinstance(events[-1], Answer) else {"ok": False, "error": None}


def presets() -> list[dict[str, Any]]:
    """Returns the presets: name, title, about, settings."""
    return [
        {"name": preset.name, "title": preset.title, "about": preset.about, "settings": preset.settings}
        for preset in list_presets()
    ]


def endpoints(workshop: Workshop) -> None:
    """Gives the page its named endpoints; call it inside a Blocks."""

    def run_generate(request: gr.Request, *raw: Any) -> Iterator[Event]:
        yield from generate(workshop, _given(raw), request.session_hash or "")

    def run_compare(request: gr.Request, *raw: Any) -> Iterator[Event]:
        judge, dial, *fields = raw
        yield from compare(workshop, _given(fields), judge, DIAL if dial else DUEL, request.session_hash or "")

    def read_info(picture: dict) -> dict:  # type: ignore[type-arg]
        """Reads the settings inside a picture of clipgen or another app."""
        return info(workshop, picture)

    def score(picture: dict, prompt: str, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Says how well a picture fits a text."""
        found = answered(workshop, partial(ask.score, workshop, picture, prompt), request.session_hash or "")
        return found if isinstance(found, dict) else {"ok": True, "clip": found.to_dict()}

    def rank(pictures: list, prompt: str, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Sorts pictures by how well they fit a text, the best first; index counts from 0 in your list."""
        found = answered(workshop, partial(ask.rank, workshop, pictures, prompt), request.session_hash or "")
        if isinstance(found, dict):
            return found
        return {"ok": True, "pictures": [{"index": each.index, "clip": each.score.to_dict()} for each in found]}

    def caption(picture: dict, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Says what a picture shows, by a model that brings a captioner."""
        found = answered(workshop, partial(ask.caption, workshop, picture), request.session_hash or "")
        return found if isinstance(found, dict) else {"ok": True, "caption": found}

    def classify(picture: dict, labels: str, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Says which of some labels, between commas, a picture shows."""
        found = answered(workshop, partial(ask.classify, workshop, picture, labels), request.session_hash or "")
        return found if isinstance(found, dict) else {"ok": True, "labels": [vars(guess) for guess in found]}

    def explain(picture: dict, prompt: str, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Says which part of a picture belongs to which word; an empty prompt is the one inside."""
        found = answered(workshop, partial(ask.explain, workshop, picture, prompt), request.session_hash or "")
        return found if isinstance(found, dict) else {"ok": True, **found.to_dict()}

    def list_presets_() -> list:  # type: ignore[type-arg]
        """Lists the presets."""
        return presets()

    def models_() -> list:  # type: ignore[type-arg]
        """Lists the models that this page draws with."""
        return list(workshop.house.models)

    def status() -> dict:  # type: ignore[type-arg]
        """Tells which model is loaded, on what, and how many jobs there are."""
        return workshop.status()

    many: dict[str, Any] = {"concurrency_limit": None}
    endpoint(_with_fields(run_generate), api_name="generate", api_description=_described("Draws pictures."), **many)
    endpoint(
        _with_fields(run_compare, judge=str, dial=bool),
        api_name="compare",
        api_description=_described("Draws a prompt guided and unguided, or with dial steered more and less."),
        **many,
    )
    endpoint(read_info, api_name="info", **many)
    for run in (score, rank, classify, caption, explain):
        endpoint(run, api_name=run.__name__, **many)
    endpoint(list_presets_, api_name="presets", **many)
    endpoint(models_, api_name="models", **many)
    endpoint(status, api_name="status", **many)


def _given(raw: Any) -> dict[str, Any]:
    """Returns the fields that a caller gave: None is what nobody said."""
    return {name: value for name, value in zip(FIELDS, raw, strict=True) if value is not None}


def _with_fields(run: Callable[..., Any], **first: type) -> Callable[..., Any]:
    """Gives a function of raw values one named parameter for each Settings field, None where nothing is said."""
    hints = {**first, **{name: _kind(name) for name in FIELDS}}
    named = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=hint)
        for name, hint in hints.items()
    ]
    request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)

    def call(*raw: Any) -> Iterator[Event]:
        yield from run(*raw)

    vars(call)["__signature__"] = inspect.Signature([request, *named], return_annotation=dict)
    call.__annotations__ = {"request": gr.Request, **hints, "return": dict}
    return call


def _kind(name: str) -> type:
    """Returns the type that a field's annotation begins with; choices are texts."""
    return KINDS.get(re.split(r"\W", Settings.__annotations__[name])[0], str)


def _described(what: str) -> str:
    return f"{what} Inputs are Settings fields, None = nothing said; streams the events that clipgen --json prints."
