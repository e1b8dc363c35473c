"""Where pictures get made for the page: one model in a thread of its own, one line of jobs, everything a generator."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from clipgen import history
from clipgen.errors import Cancelled, ClipgenError, ImageFileError, SettingsError
from clipgen.settings.checks import Limits, split_target, unknown_name
from clipgen.settings.preset import load_preset
from clipgen.settings.settings import FIELDS, Settings, seeded, validate

from .line import Line, Ticket
from .loading import Progress
from .pace import Pace
from .shelf import Shelf
from .upload import picture_of

if TYPE_CHECKING:
    from clipgen.compare import Arm, Heard, Panel, Way
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Result, Step

E = TypeVar("E")

PATIENCE = 0.25  # seconds between two looks at a line or a loading model
LONGEST = 300  # seconds that one job may take where strangers come


@dataclass(frozen=True)
class Waiting:
    """A job in the line, with so many before it."""

    place: int


@dataclass(frozen=True)
class Loading:
    """A job whose model is being loaded, so many percent of it so far."""

    model: str
    percent: int


@dataclass(frozen=True)
class Stopped:
    """The end of a job that was told to stop."""


@dataclass(frozen=True)
class Picture:
    """A finished picture: `shown` is the copy that pages see, `saved` the file in the output folder, if one is kept."""

    result: Result
    shown: Path
    saved: Path | None


@dataclass(frozen=True)
class Compared:
    """One finished arm of a comparison, its picture, and who judged."""

    arm: Arm
    picture: Picture
    panel: Panel


@dataclass(frozen=True)
class Answer:
    """What the loaded model said to a question."""

    value: Any


@dataclass(frozen=True)
class House:
    """How a page is served: its models, the first one is loaded at once, and what it keeps.

    `keep` writes pictures to `output`, a template, None = the usual place; else they are on the shelf only.
    `limits` are those of its visitors, `strangers` = it listens to other machines.
    """

    models: tuple[str, ...]
    limits: Limits
    device: str = "auto"
    dtype: str = "auto"
    keep: bool = True
    output: str | None = None
    history: bool = False
    strangers: bool = False


class Workshop:
    """The loaded model, the line in front of it and the shelf behind it; every visitor's jobs come here."""

    def __init__(self, house: House, shelf: Shelf, line: Line | None = None) -> None:
        self.house = house
        self.shelf = shelf
        self.limits = replace(house.limits, files=True)  # of the shelf alone, as _check_names sees to
        self.line = Line() if line is None else line
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="clipgen-load")
        self._model = ""
        self._loaded: Future[Pipeline] | None = None
        self._progress = Progress()
        self.pace = Pace()

    def open(self) -> None:
        """Begins to load the first model, and returns at once."""
        self._load(self.house.models[0])

    @property
    def pipeline(self) -> Pipeline | None:
        """The model in hand, None while one is being loaded or if it cannot be."""
        loaded = self._loaded
        return loaded.result() if loaded is not None and loaded.done() and loaded.exception() is None else None

    @property
    def model(self) -> str:
        """The name of the model that is loaded or being loaded."""
        return self._model

    @property
    def varies(self) -> bool:
        """Whether the model in hand draws variations of a picture."""
        return self.pipeline is not None and self.pipeline.family.encode_image is not None

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded."""
        return self._loaded is None or not self._loaded.done()

    @property
    def percent(self) -> int:
        """How much of the model is loaded."""
        return self._progress.percent

    def settings(self, values: Mapping[str, Any]) -> Settings:
        """Checks raw values as they come from a page or a program; raises SettingsError or PresetError.

        A preset lends its style, and what `values` leave open.
        """
        for name in values:
            if name not in FIELDS:
                raise SettingsError(unknown_name("setting", name, FIELDS), field=str(name)[:60])
        if values.get("preset") is not None:
            Settings.from_dict({**values, "prompt": values.get("prompt", "")})
            values = load_preset(values["preset"]).apply(values)
        settings = Settings.from_dict({"model": self.house.models[0], **values})
        validate(settings, self.limits)
        self._check_names(settings)
        return settings

    def _check_names(self, settings: Settings) -> None:
        """Refuses what would open a file or a model that nobody put here for visitors."""
        if settings.model not in self.house.models:
            known = ", ".join(self.house.models)
            raise SettingsError(f"model must be one of this page's: {known}, got '{settings.model}'", field="model")
        named = [("like", target) for target in settings.like]
        if settings.vary is not None:
            named.append(("vary", settings.vary))
        for field, target in named:
            try:
                picture_of(self.shelf, split_target(target)[0])
            except ImageFileError as error:
                raise SettingsError(f"{field}: {error}", field=field) from error
        for name in settings.clip_models:
            check_hub_id("clip_models", name)

    def draw(self, settings: Settings, visitor: str) -> Iterator[Waiting | Loading | Step | Picture | Stopped]:
        """Yields everything that happens to a job until its last picture; raises ClipgenError.

        Closing the iterator, or `stop`, ends it within a step.
        """
        from clipgen.pipeline.result import Result

        with self.line.join(visitor) as ticket:
            pipe = yield from self._turn(ticket, settings.model)
            if pipe is not None:
                validate(settings.with_defaults(pipe.defaults), self.limits)
                drawing = pipe.generate(settings, ticket.stopped.is_set)
                with closing(cast("Generator[Step | Result, None, None]", drawing)) as events:
                    for event in self._until_stopped(events, ticket):
                        yield self._picture(event) if isinstance(event, Result) else event
            if ticket.stopped.is_set():
                yield Stopped()

    def compare(
        self, settings: Settings, judge: str | None, way: Way, visitor: str
    ) -> Iterator[Waiting | Loading | Heard | Compared | Stopped]:
        """Yields the steps and the pictures of a contest from one noise; raises ClipgenError."""
        from clipgen.compare import Arm, contest, panel_of
        from clipgen.pipeline import inputs

        if judge is not None:
            check_hub_id("judge", judge)
        if not settings.prompt.strip():
            raise SettingsError("prompt must not be empty: both pictures are held against it", field="prompt")
        guidance = "clip" if settings.guidance == "off" else settings.guidance
        settings = seeded(settings).replace(images=1, guidance=guidance)
        way.check(settings)
        with self.line.join(visitor) as ticket:
            pipe = yield from self._turn(ticket, settings.model)
            if pipe is not None:
                validate(settings.with_defaults(pipe.defaults), self.limits)
                inputs.check_clips(settings, offline=True)
                if judge is not None:
                    inputs.check_judge(judge, settings, offline=True)
                panel = panel_of(pipe, settings, judge)
                drawing = contest(pipe, settings, panel, way, ticket.stopped.is_set)
                with closing(cast("Generator[Heard | Arm, None, None]", drawing)) as events:
                    for event in self._until_stopped(events, ticket):
                        yield Compared(event, self._picture(event.result), panel) if isinstance(event, Arm) else event
            if ticket.stopped.is_set():
                yield Stopped()

    def ask(
        self, question: Callable[[Pipeline], Any], model: str, visitor: str
    ) -> Iterator[Waiting | Loading | Answer | Stopped]:
        """Yields what happens until a model answers a question, which waits in the line as every job does."""
        with self.line.join(visitor) as ticket:
            pipe = yield from self._turn(ticket, model)
            yield Stopped() if pipe is None else Answer(question(pipe))

    def stop(self, visitor: str) -> int:
        """Stops all jobs of a visitor and returns how many there were."""
        return self.line.stop(visitor)

    def status(self) -> dict[str, Any]:
        """Returns what the status line says: model, whether it is ready, device, how many jobs there are."""
        pipe = self.pipeline
        return {
            "model": self._model,
            "ready": pipe is not None,
            "jobs": len(self.line),
            "device": str(pipe.device) if pipe else None,
            "defaults": pipe.defaults if pipe else {},
        }

    def _turn(self, ticket: Ticket, model: str) -> Generator[Waiting | Loading, None, Pipeline | None]:
        """Waits for a job's turn and its model, which it returns; None if it was stopped before."""
        while place := self.line.place(ticket):
            yield Waiting(place)
            if ticket.stopped.is_set():
                return None
            self.line.place(ticket, PATIENCE)
        loaded = self._load(model)
        while not loaded.done():
            yield Loading(model, self.percent)
            if ticket.stopped.is_set():
                return None
            wait([loaded], PATIENCE)
        return loaded.result()

    def _load(self, model: str) -> Future[Pipeline]:
        """Returns the model, or begins to load it in the place of the one before."""
        failed = self._loaded is not None and self._loaded.done() and self._loaded.exception() is not None
        if self._loaded is None or self._model != model or failed:
            self._model, self._progress, self.pace, self._loaded = model, Progress(), Pace(), None
            self._loaded = self._loader.submit(self._read, model, self._progress)
        return self._loaded

    def _read(self, model: str, progress: Progress) -> Pipeline:
        progress.libraries()
        from clipgen.pipeline.pipeline import Pipeline

        house = self.house
        return Pipeline.from_pretrained(model, house.device, house.dtype, offline=True, progress=progress.filling)

    def _until_stopped(self, events: Iterator[E], ticket: Ticket) -> Iterator[E]:
        """Yields events until the job is told to stop, inside a step too.

        Pictures of one batch come together, so none of them is lost.
        """
        from clipgen.compare import Heard
        from clipgen.pipeline.result import Step

        began = time.monotonic()
        with suppress(Cancelled):
            for event in events:
                yield event
                if isinstance(event, Step | Heard):
                    if ticket.stopped.is_set():
                        return
                    if self.house.strangers and time.monotonic() - began > LONGEST:
                        raise ClipgenError(f"A job may take {LONGEST} s here, and this one took more. Ask for less.")

    def _picture(self, result: Result) -> Picture:
        """Writes a finished picture where the house wants it, and puts it on the shelf."""
        self.pace.hear(result.settings, result.seconds)
        if not self.house.keep:
            return Picture(result, result.save(self.shelf.place()), None)
        saved = result.save(self.house.output)
        if self.house.history:
            history.record(saved, result.settings, clip=result.metadata["clip"])
        return Picture(result, self.shelf.put(saved), saved)


def check_hub_id(field: str, name: str) -> None:
    """Raises SettingsError for a CLIP that is named by folder: visitors name `storybook` or a hub id."""
    from clipgen.models import parse_id

    if parse_id(name).kind == "folder":
        raise SettingsError(f"{field} must be a hub id on this machine, got '{name[:60]}'", field=field)
