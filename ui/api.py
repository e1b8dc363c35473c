"""Named Gradio endpoints for programs: Settings fields in, JSON events or JSON answers out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr
from gradio.events import api as register_endpoint

from clipgen.compare import BEST_OF_N, SCALE_SWEEP
from clipgen.errors import ClipgenError
from clipgen.report.command_line import command_line
from clipgen.settings.preset import list_presets
from clipgen.settings.settings import FIELDS, Settings

from . import clip_tasks, json_events
from .job_events import TaskResult
from .json_events import JsonEvent
from .worker import Worker

TYPES: Mapping[str, type] = {"int": int, "float": float, "bool": bool, "str": str, "tuple": list}
STREAM_HELP = "Inputs are Settings fields, None for the default; streams the events that clipgen --json prints."


class Endpoints:
    """The endpoints that return one JSON answer, under the names of these methods.

    The first line of each docstring is the description that programs read. An error is returned as
    `{"ok": false, "error": ...}`.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def info(self, picture: dict) -> dict:  # type: ignore[type-arg]
        """Reads the settings stored inside a picture of clipgen or another app."""
        try:
            _, restored = self._worker.image_store.read_settings(picture)
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
        """Scores how well a picture fits a text."""
        return self._run(
            request,
            lambda: clip_tasks.score(self._worker, picture, prompt),
            lambda score: {"clip": score.to_dict()},
        )

    def rank(self, pictures: list, prompt: str, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Sorts pictures by how well they fit a text, best first; index counts from 0 in the given list."""
        return self._run(
            request,
            lambda: clip_tasks.rank(self._worker, pictures, prompt),
            lambda ranking: {"pictures": [{"index": each.index, "clip": each.score.to_dict()} for each in ranking]},
        )

    def caption(self, picture: dict, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Describes a picture in words, if the model has a captioner."""
        return self._run(
            request,
            lambda: clip_tasks.caption(self._worker, picture),
            lambda caption: {"caption": caption},
        )

    def classify(self, picture: dict, labels: str, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Returns the probability of each label; labels is a text with commas between them."""
        return self._run(
            request,
            lambda: clip_tasks.classify(self._worker, picture, labels),
            lambda guesses: {"labels": [vars(guess) for guess in guesses]},
        )

    def explain(self, picture: dict, prompt: str, request: gr.Request) -> dict:  # type: ignore[type-arg]
        """Shows which part of a picture belongs to which word; an empty prompt means the one inside the picture."""
        return self._run(
            request,
            lambda: clip_tasks.explain(self._worker, picture, prompt),
            lambda explanation: explanation.to_dict(),
        )

    def presets(self) -> list:  # type: ignore[type-arg]
        """Lists the presets."""
        return [
            {"name": preset.name, "title": preset.title, "about": preset.about, "settings": preset.settings}
            for preset in list_presets()
        ]

    def models(self) -> list:  # type: ignore[type-arg]
        """Lists the models that this server offers."""
        return list(self._worker.config.models)

    def status(self) -> dict:  # type: ignore[type-arg]
        """Returns the loaded model, its device and the number of jobs."""
        return self._worker.status()

    def _run(
        self, request: gr.Request, build_task: Callable[[], Any], to_dict: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        """Runs a task and returns its result as JSON, or the error that building or running it raised."""
        worker = self._worker
        try:
            model = worker.model_name or worker.config.models[0]
            *_, last = worker.run_task(build_task(), model, request.session_hash or "")
        except ClipgenError as error:
            return {"ok": False, "error": error.to_dict()}
        return {"ok": True, **to_dict(last.value)} if isinstance(last, TaskResult) else {"ok": False, "error": None}


def add_endpoints(worker: Worker) -> None:
    """Adds the named endpoints to the gr.Blocks that is being built."""

    def generate(request: gr.Request, *raw: Any) -> Iterator[JsonEvent]:
        yield from json_events.generate(worker, _without_none(raw), request.session_hash or "")

    def compare(request: gr.Request, *raw: Any) -> Iterator[JsonEvent]:
        judge, dial, *fields = raw
        comparison = SCALE_SWEEP if dial else BEST_OF_N
        yield from json_events.compare(worker, _without_none(fields), judge, comparison, request.session_hash or "")

    compare_help = "Generates a prompt with and without guidance, or with dial at several guidance strengths."
    for name, function, description in (
        ("generate", _with_fields(generate), "Generates pictures."),
        ("compare", _with_fields(compare, judge=str, dial=bool), compare_help),
    ):
        register_endpoint(
            function, api_name=name, api_description=f"{description} {STREAM_HELP}", concurrency_limit=None
        )
    for name, method in inspect.getmembers(Endpoints(worker), inspect.ismethod):
        if not name.startswith("_"):
            register_endpoint(method, api_name=name, concurrency_limit=None)


def _without_none(raw: Any) -> dict[str, Any]:
    """Returns the Settings fields that the caller set: None means the default."""
    return {name: value for name, value in zip(FIELDS, raw, strict=True) if value is not None}


def _with_fields(function: Callable[..., Any], **extra: type) -> Callable[..., Any]:
    """Returns a function whose signature has one named parameter for each of `extra` and each Settings field.

    Gradio reads the signature to describe the endpoint. Each parameter is optional, its default is None.
    """
    types = {**extra, **{name: _field_type(name) for name in FIELDS}}
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("request", keyword, annotation=gr.Request)]
    parameters += [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in types.items()]

    def call(*raw: Any) -> Iterator[JsonEvent]:
        yield from function(*raw)

    vars(call)["__signature__"] = inspect.Signature(parameters, return_annotation=dict)
    call.__annotations__ = {"request": gr.Request, **types, "return": dict}
    return call


def _field_type(name: str) -> type:
    """Returns the first type in a field's annotation; a Literal is a str."""
    return TYPES.get(re.split(r"\W", Settings.__annotations__[name])[0], str)
