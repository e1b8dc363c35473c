"""The worker: holds one loaded model and runs the jobs of all sessions on it, one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from clipgen import history
from clipgen.errors import Cancelled, ClipgenError, ImageFileError, SettingsError
from clipgen.settings.checks import names_path, split_target, unknown_name
from clipgen.settings.preset import load_preset
from clipgen.settings.settings import ADAPTER_FIELDS, FIELDS, Settings, validate, with_seed

from .image_store import ImageStore
from .job_events import ComparedImage, FinishedImage, JobStopped, Loading, TaskResult, Waiting
from .load_status import LoadStatus
from .queue import Job, Queue
from .server_config import ServerConfig
from .speed import SpeedEstimate

if TYPE_CHECKING:
    from clipgen.compare import Comparison, Variant, VariantStep
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Result, Step

E = TypeVar("E")

POLL_SECONDS = 0.25  # between two looks at the queue or at a model that is being loaded
MAX_JOB_SECONDS = 300  # of one job on a public server


class Worker:
    """The loaded model, the queue of jobs and the image store. Each method that runs a job is a generator."""

    def __init__(self, config: ServerConfig, image_store: ImageStore, queue: Queue | None = None) -> None:
        self.config = config
        self.image_store = image_store
        self.limits = replace(config.limits, files=True)  # files of the image store only: see _check_names
        self.queue = Queue() if queue is None else queue
        self.speed = SpeedEstimate()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="clipgen-load")
        self._model_name = ""
        self._future: Future[Pipeline] | None = None
        self._load_status = LoadStatus()

    def start_loading(self) -> None:
        """Starts to load the first model in the background."""
        self._load(self.config.models[0])

    @property
    def pipeline(self) -> Pipeline | None:
        """The loaded pipeline, None while it is being loaded and if loading failed."""
        future = self._future
        return future.result() if future is not None and future.done() and future.exception() is None else None

    @property
    def model_name(self) -> str:
        """The name of the model that is loaded or being loaded."""
        return self._model_name

    @property
    def supports_variations(self) -> bool:
        """Whether the loaded model can generate variations of an image."""
        return self.pipeline is not None and self.pipeline.family.encode_image is not None

    @property
    def is_loading(self) -> bool:
        """Whether no model has finished loading yet."""
        return self._future is None or not self._future.done()

    @property
    def load_percent(self) -> int:
        """How much of the model is loaded, 0 to 100."""
        return self._load_status.percent

    def build_settings(self, values: Mapping[str, Any]) -> Settings:
        """Returns Settings from the raw values of a form or a request; raises SettingsError or PresetError.

        A preset fills the fields that `values` does not contain, and its style is applied to the prompt.
        """
        for name in values:
            if name not in FIELDS:
                raise SettingsError(unknown_name("setting", name, FIELDS), field=str(name)[:60])
        if values.get("preset") is not None:
            Settings.from_dict({**values, "prompt": values.get("prompt", "")})
            values = load_preset(values["preset"]).apply(values)
        settings = Settings.from_dict({"model": self.config.models[0], **values})
        validate(settings, self.limits)
        self._check_names(settings)
        return settings

    def _check_names(self, settings: Settings) -> None:
        """Refuses models and LoRAs that the server does not offer and images that are not in the image store."""
        from clipgen.pipeline.adapters import check_adapters

        if settings.model not in self.config.models:
            models = ", ".join(self.config.models)
            raise SettingsError(f"model must be one of: {models}, got '{settings.model}'", field="model")
        images = [("like", target) for target in settings.like]
        if settings.vary is not None:
            images.append(("vary", settings.vary))
        for field, target in images:
            try:
                self.image_store.image_path(split_target(target)[0])
            except ImageFileError as error:
                raise SettingsError(f"{field}: {error}", field=field) from error
        if settings.vae is not None and settings.vae not in self.config.vaes:
            check_hub_id("vae", settings.vae)
        for field in ADAPTER_FIELDS:
            for target in getattr(settings, field):
                check_adapter_name(field, split_target(target)[0])
        check_adapters([settings])
        for name in settings.clip_models:
            check_hub_id("clip_models", name)

    def generate(
        self, settings: Settings, session: str
    ) -> Iterator[Waiting | Loading | Step | FinishedImage | JobStopped]:
        """Yields the events of a job that generates images; raises ClipgenError.

        Closing the iterator, or `cancel`, ends the job within one step.
        """
        from clipgen.pipeline.result import Result

        with self.queue.add(session) as job:
            pipe = yield from self._wait_for_model(job, settings.model)
            if pipe is not None:
                validate(settings.with_defaults(pipe.defaults), self.limits)
                steps = pipe.generate(settings, job.cancelled.is_set)
                with closing(cast("Generator[Step | Result, None, None]", steps)) as events:
                    for event in self._until_cancelled(events, job):
                        yield self._save(event) if isinstance(event, Result) else event
            if job.cancelled.is_set():
                yield JobStopped()

    def compare(
        self, settings: Settings, judge: str | None, comparison: Comparison, session: str
    ) -> Iterator[Waiting | Loading | VariantStep | ComparedImage | JobStopped]:
        """Yields the events of a job that generates several variants from the same noise; raises ClipgenError.

        Args:
            settings: The variant "guided"; without a guidance method, "clip" is used.
            judge: Hub id of a CLIP that scores the variants and guides none of them, None for the model's own.
            comparison: Which variants are generated: `clipgen.compare.BEST_OF_N` or `SCALE_SWEEP`.
            session: The browser session that owns the job.
        """
        from clipgen.compare import Variant, choose_scorers, run_comparison
        from clipgen.pipeline import inputs

        if judge is not None:
            check_hub_id("judge", judge)
        if not settings.prompt.strip():
            raise SettingsError("prompt must not be empty: each picture is scored against it", field="prompt")
        guidance = "clip" if settings.guidance == "off" else settings.guidance
        settings = with_seed(settings).replace(images=1, guidance=guidance)
        comparison.check(settings)
        with self.queue.add(session) as job:
            pipe = yield from self._wait_for_model(job, settings.model)
            if pipe is not None:
                validate(settings.with_defaults(pipe.defaults), self.limits)
                inputs.check_clips(settings, offline=True)
                if judge is not None:
                    inputs.check_judge(judge, settings, offline=True)
                scorers = choose_scorers(pipe, settings, judge)
                steps = run_comparison(pipe, settings, scorers, comparison, job.cancelled.is_set)
                with closing(cast("Generator[VariantStep | Variant, None, None]", steps)) as events:
                    for event in self._until_cancelled(events, job):
                        yield (
                            ComparedImage(event, self._save(event.result), scorers)
                            if isinstance(event, Variant)
                            else event
                        )
            if job.cancelled.is_set():
                yield JobStopped()

    def run_task(
        self, task: Callable[[Pipeline], Any], model: str, session: str
    ) -> Iterator[Waiting | Loading | TaskResult | JobStopped]:
        """Yields the events of a job that calls a function with the pipeline, such as scoring an upload."""
        with self.queue.add(session) as job:
            pipe = yield from self._wait_for_model(job, model)
            yield JobStopped() if pipe is None else TaskResult(task(pipe))

    def cancel(self, session: str) -> int:
        """Cancels all jobs of a session and returns how many there were."""
        return self.queue.cancel(session)

    def status(self) -> dict[str, Any]:
        """Returns the model, whether it is ready, its device, its defaults and the number of jobs."""
        pipe = self.pipeline
        return {
            "model": self._model_name,
            "ready": pipe is not None,
            "jobs": len(self.queue),
            "device": str(pipe.device) if pipe else None,
            "defaults": pipe.defaults if pipe else {},
        }

    def _wait_for_model(self, job: Job, model: str) -> Generator[Waiting | Loading, None, Pipeline | None]:
        """Waits until a job may run and its model is loaded; returns the pipeline, None if the job was cancelled."""
        while position := self.queue.position(job):
            yield Waiting(position)
            if job.cancelled.is_set():
                return None
            self.queue.position(job, POLL_SECONDS)
        future = self._load(model)
        while not future.done():
            yield Loading(model, self.load_percent)
            if job.cancelled.is_set():
                return None
            wait([future], POLL_SECONDS)
        return future.result()

    def _load(self, model: str) -> Future[Pipeline]:
        """Returns the future of a model; if another model is loaded, or loading failed, loading starts again."""
        failed = self._future is not None and self._future.done() and self._future.exception() is not None
        if self._future is None or self._model_name != model or failed:
            self._model_name, self._load_status, self.speed = model, LoadStatus(), SpeedEstimate()
            self._future = None  # releases the old pipeline before the new one needs the memory
            self._future = self._loader.submit(self._read, model, self._load_status)
        return self._future

    def _read(self, model: str, status: LoadStatus) -> Pipeline:
        status.import_libraries()
        from clipgen.pipeline.pipeline import Pipeline

        device, dtype = self.config.device, self.config.dtype
        return Pipeline.from_pretrained(model, device, dtype, offline=True, progress=status.update_weights)

    def _until_cancelled(self, events: Iterator[E], job: Job) -> Iterator[E]:
        """Yields events until the job is cancelled; the pipeline checks for cancellation inside a step too.

        After the last step the images of a batch arrive together, so the check is made after steps only and no
        finished image is lost.
        """
        from clipgen.compare import VariantStep
        from clipgen.pipeline.result import Step

        start = time.monotonic()
        with suppress(Cancelled):
            for event in events:
                yield event
                if isinstance(event, Step | VariantStep):
                    if job.cancelled.is_set():
                        return
                    if self.config.public and time.monotonic() - start > MAX_JOB_SECONDS:
                        raise ClipgenError(f"A job may take at most {MAX_JOB_SECONDS} s on this server. Ask for less.")

    def _save(self, result: Result) -> FinishedImage:
        """Saves a finished image as the server's config says, and adds it to the image store."""
        self.speed.add(result.settings, result.seconds)
        if not self.config.save_images:
            return FinishedImage(result, result.save(self.image_store.new_folder()), None)
        saved_path = result.save(self.config.output)
        if self.config.history:
            history.record(saved_path, result.settings, clip=result.metadata["clip"])
        return FinishedImage(result, self.image_store.add(saved_path), saved_path)


def check_adapter_name(field: str, name: str) -> None:
    """Raises SettingsError if a LoRA is named by a path: requests may name files in the server's folders only."""
    if names_path(name):
        raise SettingsError(f"{field} must be a name in the folder {field}s, got '{name[:60]}'", field=field)


def check_hub_id(field: str, name: str) -> None:
    """Raises SettingsError for a CLIP or VAE on a path: requests may name `storybook` or a hub id only."""
    from clipgen.models import parse_id

    if parse_id(name).kind in ("folder", "file"):
        raise SettingsError(f"{field} must be a hub id on this machine, got '{name[:60]}'", field=field)
