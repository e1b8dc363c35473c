"""Named endpoints for programs: what the page does, with Settings fields as inputs and JSON events as outputs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import api as endpoint

from clipgen.compare import DIAL, DUEL
from clipgen.errors import ClipgenError
from clipgen.report.command_line import command_line
from clipgen.settings.preset import list_presets
from clipgen.settings.settings import FIELDS, Settings

from . import ask
from .events import Event, compare, generate
from .upload import read
from .workshop import Answer, Workshop

KINDS: Mapping[str, type] = {"int": int, "float": float, "bool": bool, "str": str, "tuple": list}
STREAMED = "Inputs are Settings fields, None = nothing said; streams the events that clipgen --json prints."


class Questions:
    """The endpoints that answer at once, by their names; programs read what each does off its first line.

    An error is an answer too, as the envelope carries it.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    def info(self, picture: dict) -> dict:  # type: ignore[type-arg]
        """Reads the settings inside a picture of clipgen or another app."""
        try:
            _, restored = read(self._workshop.shelf, picture)
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

    def score(self, picture: dict, prompt: str, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Says how well a picture fits a text."""
        asked = partial(ask.score, self._workshop, picture, prompt)
        return self._answered(request, asked, lambda found: {"clip": found.to_dict()})

    def rank(self, pictures: list, prompt: str, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Sorts pictures by how well they fit a text, the best first; index counts from 0 in your list."""

        def told(found: Any) -> dict[str, Any]:
            return {"pictures": [{"index": each.index, "clip": each.score.to_dict()} for each in found]}

        return self._answered(request, partial(ask.rank, self._workshop, pictures, prompt), told)

    def caption(self, picture: dict, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Says what a picture shows, by a model that brings a captioner."""
        asked = partial(ask.caption, self._workshop, picture)
        return self._answered(request, asked, lambda found: {"caption": found})

    def classify(self, picture: dict, labels: str, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Says which of some labels, between commas, a picture shows."""
        asked = partial(ask.classify, self._workshop, picture, labels)
        return self._answered(request, asked, lambda found: {"labels": [vars(guess) for guess in found]})

    def explain(self, picture: dict, prompt: str, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Says which part of a picture belongs to which word; an empty prompt is the one inside."""
        asked = partial(ask.explain, self._workshop, picture, prompt)
        return self._answered(request, asked, lambda found: found.to_dict())

    def presets(self) -> list:  # type: ignore[type-arg]
        """Lists the presets."""
        return [
            {"name": preset.name, "title": preset.title, "about": preset.about, "settings": preset.settings}
            for preset in list_presets()
        ]

    def models(self) -> list:  # type: ignore[type-arg]
        """Lists the models that this page draws with."""
        return list(self._workshop.house.models)

    def status(self) -> dict:  # type: ignore[type-arg]
        """Tells which model is loaded, on what, and how many jobs there are."""
        return self._workshop.status()

    def _answered(
        self, request: gr.Request, asked: Callable[[], Any], told: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        """Returns the answer to a question about a picture, as `told` says it."""
        workshop = self._workshop
        try:
            model = workshop.model or workshop.house.models[0]
            last = list(workshop.ask(asked(), model, request.session_hash or ""))[-1]
        except ClipgenError as error:
            return {"ok": False, "error": error.to_dict()}
        return {"ok": True, **told(last.value)} if isinstance(last, Answer) else {"ok": False, "error": None}


def endpoints(workshop: Workshop) -> None:
    """Gives the page its named endpoints; call it inside a Blocks."""

    def run_generate(request: gr.Request, *raw: Any) -> Iterator[Event]:
        yield from generate(workshop, _given(raw), request.session_hash or "")

    def run_compare(request: gr.Request, *raw: Any) -> Iterator[Event]:
        judge, dial, *fields = raw
        yield from compare(workshop, _given(fields), judge, DIAL if dial else DUEL, request.session_hash or "")

    drawing = {
        "generate": (_with_fields(run_generate), "Draws pictures."),
        "compare": (
            _with_fields(run_compare, judge=str, dial=bool),
            "Draws a prompt guided and unguided, or with dial steered more and less.",
        ),
    }
    for name, (run, what) in drawing.items():
        endpoint(run, api_name=name, api_description=f"{what} {STREAMED}", concurrency_limit=None)
    for name, answer in inspect.getmembers(Questions(workshop), inspect.ismethod):
        if not name.startswith("_"):
            endpoint(answer, api_name=name, concurrency_limit=None)


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
