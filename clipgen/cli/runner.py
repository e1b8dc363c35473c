"""Draws the runs of a command: keeps the loaded model, selects for --keep, saves, shows and reports each picture."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

from clipgen.cli import files, terminal_image
from clipgen.cli.config_file import read_user
from clipgen.cli.flags import Options
from clipgen.cli.interrupt import Interrupt
from clipgen.cli.outcome import FinishedImage
from clipgen.cli.output import Report
from clipgen.cli.progress import Bar, ProgressEstimate
from clipgen.cli.resolve import absolute_adapters, absolute_model, absolute_source
from clipgen.cli.result_checks import ResultChecks
from clipgen.cli.runs import Run, TwinSimilarities
from clipgen.errors import ClipgenError
from clipgen.report.score_text import likeness_line, score_line
from clipgen.settings.settings import INFO_NOTES, Note, Settings

if TYPE_CHECKING:
    from clipgen.clip.prompt_check import PhraseCheck
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Result, Step

STEP_EVENTS_PER_SECOND = 10
PREVIEWS_PER_SECOND = 4
OnSaved = Callable[[str, Path | None], None]  # receives a job and its file, None if --keep drops the picture


class Throttle:
    """Limits how often something happens per second."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second
        self._next = 0.0

    def ready(self) -> bool:
        """Returns True if enough time has passed since it last returned True."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._gap
        return True


class Runner:
    """The state of one drawing command: the loaded model, the pictures that wait for --keep, the finished pictures.

    Args:
        pictures: The number of pictures of all runs.
        options: The options of the command.
        target: Where and how the pictures are saved.
        report: The output of the command.
        bar: Its progress bar.
        parent: The history id of the picture that the settings come from.
    """

    def __init__(
        self, pictures: int, options: Options, target: files.OutputTarget, report: Report, bar: Bar, parent: int | None
    ) -> None:
        self.options = options
        self.target = target
        self.report = report
        self.bar = bar
        self.parent = parent
        self.on_saved: OnSaved | None = None
        self.finished: list[FinishedImage] = []
        self._checks = ResultChecks(options.require or (), report)
        self._candidates: list[tuple[int, Run, Result]] = []  # for --keep
        self._printed_notes: set[Note] = set()
        self._loaded: tuple[str, Pipeline] | None = None
        self._estimate = ProgressEstimate(pictures)
        self._twin_similarities = TwinSimilarities()
        self._events, self._previews = Throttle(STEP_EVENTS_PER_SECOND), Throttle(PREVIEWS_PER_SECOND)
        tables = read_user().tables
        self._history = tables.get("history.on", True) and not options.no_history
        self._mode = _terminal_image_mode(options, tables.get("output.show", "auto"))

    def run(self, runs: Sequence[Run], interrupt: Interrupt) -> None:
        """Draws the runs one after the other. A signal ends it after the current step."""
        first = 0
        for run in runs:
            if interrupt.stopped:
                return
            if self._candidates and self._candidates[0][1].group != run.group:
                self.flush()
            pipe = self._load(run.settings.model, [each.settings for each in runs], interrupt)
            self._print_notes(pipe.resolve_budget(run.settings)[1])
            self._estimate.begin(run.settings.images)
            with closing(cast("Generator[Step | Result, None, None]", pipe.generate(run.settings))) as events:
                for event in events:
                    if self._handle(event, run, first) and interrupt.stopped:
                        return
            self._checks.report_diversity()
            first += run.settings.images

    def _load(self, model: str, settings: Sequence[Settings], interrupt: Interrupt) -> Pipeline:
        """Returns the pipeline of a model. It is loaded unless it is the current one; a signal aborts the loading.

        `settings` are those of all runs: what the model cannot draw is refused before it is loaded.
        """
        if self._loaded is None or self._loaded[0] != model:
            self._loaded = None
            self.bar.loading(f"Loading {model}")
            self.report.event("loading", what=model, done=0, total=1)
            with interrupt.abortable():
                self._loaded = (model, from_pretrained(model, self.options, [s for s in settings if s.model == model]))
            self.report.event("loading", what=model, done=1, total=1)
        return self._loaded[1]

    def _handle(self, event: Step | Result, run: Run, first: int) -> bool:
        """Handles one event of the pipeline; returns whether the run can be stopped here.

        The pictures of a batch are finished together, so a run is not stopped between their results. `first` is the
        number of the run's first picture.
        """
        from clipgen.pipeline.result import Step

        if isinstance(event, Step):
            self._handle_step(self._twin_similarities.add(event, run), run, first + event.image)
            return True
        self._estimate.finish(event.seconds)
        self._checks.add_features(event, run.settings.images)
        if self.options.keep:
            self._add_candidate(self.options.keep, (first + event.index, run, event))
        else:
            self._finish(first + event.index, run, event)
        return False

    def _handle_step(self, step: Step, run: Run, number: int) -> None:
        left = self._estimate.left(step.eta)
        self.bar.step(step, number, left, "unguided" if run.twin else "")
        if self.report.json and (self._events.ready() or step.index in (0, step.steps - 1)):
            self.report.event(
                "step",
                image=number,
                step=step.index + 1,
                steps=step.steps,
                eta=left and round(left, 2),
                similarity=step.similarity,
                percentile=step.percentile,
                similarity_unguided=step.similarity_unguided,
            )
        if self.options.preview and self._previews.ready():
            files.replace_preview(step.preview(), Path(self.options.preview))

    def _add_candidate(self, keep: int, candidate: tuple[int, Run, Result]) -> None:
        """Adds a picture to the candidates of its group; the worst one is dropped if there are more than `keep`."""
        self._candidates.append(candidate)
        if len(self._candidates) > keep:
            worst = min(self._candidates, key=lambda item: _match_rank(item[2]))
            self._candidates.remove(worst)
            number, run, result = worst
            self._image_event(number, run, result, None)
            self._call_on_saved(run, None)

    def flush(self) -> None:
        """Saves the candidates of --keep, best first."""
        best = sorted(self._candidates, key=lambda item: _match_rank(item[2]), reverse=True)
        self._candidates = []
        for number, run, result in best:
            self._finish(number, run, result)

    def _finish(self, number: int, run: Run, result: Result) -> None:
        """Saves one picture, shows it, prints its path and adds it to the history."""
        digest = files.save(result, self.target, job=run.job, label=run.label)
        percentile = result.clip.percentile if result.clip else None
        self._call_on_saved(run, result.path)
        self.bar.next_picture()
        checks = self._checks.check(result)
        missed = tuple(each.subject for each in checks if not each.holds)
        self.finished.append(FinishedImage(result.seed, result.path, percentile, run.twin, missed))
        self._print_result(result)
        self._image_event(number, run, result, digest, checks)
        if result.path and self._history:
            add_to_history(result, result.path, self.report, self.parent)

    def _call_on_saved(self, run: Run, path: Path | None) -> None:
        if self.on_saved and run.job:
            self.on_saved(run.job, path)

    def _print_notes(self, notes: Iterable[Note]) -> None:
        """Prints the notes that have not been printed yet."""
        for note in notes:
            if note not in self._printed_notes:
                self._printed_notes.add(note)
                (self.report.note if note.code in INFO_NOTES else self.report.warn)(note)

    def _print_result(self, result: Result) -> None:
        self._print_notes(result.warnings)
        if self._mode != "off":
            width = terminal_image.width_for(os.get_terminal_size(sys.stderr.fileno()).columns)
            self.report.picture(terminal_image.render(result.image, self._mode, width))
        score = score_line(result.clip, verbose=self.options.verbose)
        likeness = likeness_line(result.likeness) if self.options.verbose else ""
        parts = (f"seed {result.seed}", f"{result.seconds:.1f} s", score, likeness)
        self.report.say("  ".join(filter(None, parts)), "dim")
        if result.path:
            self.report.result(result.path)

    def _image_event(
        self, number: int, run: Run, result: Result, digest: str | None, checks: Sequence[PhraseCheck] = ()
    ) -> None:
        self.report.event(
            "image",
            image=number,
            seed=result.seed,
            prompt=result.settings.prompt,
            path=str(result.path) if result.path else None,
            sha256=digest,
            clip=result.metadata["clip"],
            twin=run.twin,
            **({} if result.likeness is None else {"likeness": result.likeness}),
            checks=[{"subject": each.subject, "holds": each.holds, **vars(each)} for each in checks],
            seconds=round(result.seconds, 3),
        )


def add_to_history(result: Result, path: Path, report: Report, parent: int | None) -> None:
    """Adds a saved picture to the history; warns if the history cannot be written."""
    from clipgen import history

    settings = result.settings.replace(
        model=absolute_model(result.settings.model),
        vae=None if result.settings.vae is None else absolute_model(result.settings.vae),
        vary=absolute_source(result.settings.vary),
        **absolute_adapters(result.settings),
    )
    try:
        history.record(path, settings, clip=result.metadata["clip"], parent=parent)
    except ClipgenError as error:
        report.warn(Note("history-not-written", None, str(error)))


def _terminal_image_mode(options: Options, configured: str) -> str:
    """Returns the protocol for pictures in the terminal, `off` if the output is not for a terminal."""
    terminal = sys.stdout.isatty() and sys.stderr.isatty() and not (options.json or options.quiet)
    mode = "off" if options.no_show else options.show or configured
    return terminal_image.choose(mode, os.environ, terminal=terminal, ask_da1=terminal_image.ask_terminal)


def _match_rank(result: Result) -> tuple[float, float]:
    """Returns the value by which --keep sorts, higher is better."""
    return (-1.0, result.likeness or -1.0) if result.clip is None else result.clip.rank


def from_pretrained(model: str, options: Options, settings: Sequence[Settings]) -> Pipeline:
    """Loads a model that is on this machine, for runs with these settings."""
    from clipgen.pipeline.pipeline import Pipeline

    return Pipeline.from_pretrained(
        model, options.device, options.dtype, offline=True, settings=settings, compile_denoiser=options.compile
    )
