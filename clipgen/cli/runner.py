"""Where pictures get made for people: the loaded model, what waits for --keep, what is saved, shown and told."""

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
from clipgen.cli.progress import Bar, Estimate
from clipgen.cli.resolve import absolute_model, absolute_source
from clipgen.cli.result_checks import Seen
from clipgen.cli.runs import Run, TwinSimilarities
from clipgen.errors import ClipgenError
from clipgen.report.score_text import likeness_line, score_line
from clipgen.settings.settings import INFO_NOTES, Note, Settings

if TYPE_CHECKING:
    from clipgen.clip.prompt_check import PhraseCheck
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Result, Step

STEPS_A_SECOND = 10  # step events
PREVIEWS_A_SECOND = 4
Saved = Callable[[str, Path | None], None]  # hears of each job's file, None for one that --keep drops


class Throttle:
    """Says yes at most so many times a second."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second
        self._next = 0.0

    def ready(self) -> bool:
        """Tells whether enough time has passed since the last yes."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._gap
        return True


class Runner:
    """The state of one drawing command: the loaded model, pictures that wait for --keep, and the written ones."""

    def __init__(
        self, pictures: int, options: Options, place: files.OutputTarget, report: Report, bar: Bar, parent: int | None
    ) -> None:
        self.options = options
        self.place = place
        self.report = report
        self.bar = bar
        self.parent = parent
        self.on_saved: Saved | None = None
        self.written: list[FinishedImage] = []
        self._seen = Seen(options.require or (), report)
        self._waiting: list[tuple[int, Run, Result]] = []
        self._warned: set[Note] = set()
        self._loaded: tuple[str, Pipeline] | None = None
        self._estimate = Estimate(pictures)
        self._beside = TwinSimilarities()
        self._events, self._previews = Throttle(STEPS_A_SECOND), Throttle(PREVIEWS_A_SECOND)
        tables = read_user().tables
        self._history = tables.get("history.on", True) and not options.no_history
        self._mode = _show_mode(options, tables.get("output.show", "auto"))

    def draw(self, runs: Sequence[Run], interrupt: Interrupt) -> None:
        """Draws the runs one after the other until the last one, or the next step after a signal."""
        first = 0
        for run in runs:
            if interrupt.stopped:
                return
            if self._waiting and self._waiting[0][1].group != run.group:
                self.flush()
            pipe = self._load(run.settings.model, [each.settings for each in runs], interrupt)
            self._tell(pipe.resolve_budget(run.settings)[1])
            self._estimate.begin(run.settings.images)
            with closing(cast("Generator[Step | Result, None, None]", pipe.generate(run.settings))) as events:
                for event in events:
                    if self._hear(event, run, first) and interrupt.stopped:
                        return
            self._seen.tell_diversity()
            first += run.settings.images

    def _load(self, model: str, wanted: Sequence[Settings], interrupt: Interrupt) -> Pipeline:
        """Returns the pipeline of a model, loading it unless it is the one in hand; a signal breaks this off.

        What the model cannot draw of all that is `wanted` of it is refused before it is loaded.
        """
        if self._loaded is None or self._loaded[0] != model:
            self._loaded = None
            self.bar.loading(f"Loading {model}")
            self.report.event("loading", what=model, done=0, total=1)
            with interrupt.waiting():
                own = [settings for settings in wanted if settings.model == model]
                self._loaded = (model, from_pretrained(model, self.options, own))
            self.report.event("loading", what=model, done=1, total=1)
        return self._loaded[1]

    def _hear(self, event: Step | Result, run: Run, first: int) -> bool:
        """Takes one event; `first` is the number of the run's first picture. Returns whether it can be stopped here.

        Pictures of one batch come together: after the first of them the others are finished too.
        """
        from clipgen.pipeline.result import Step

        if isinstance(event, Step):
            self._step(self._beside.hear(event, run), run, first + event.image)
            return True
        self._estimate.finish(event.seconds)
        self._seen.take(event, run.settings.images)
        if self.options.keep:
            self._wait(self.options.keep, (first + event.index, run, event))
        else:
            self._finish(first + event.index, run, event)
        return False

    def _step(self, step: Step, run: Run, number: int) -> None:
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

    def _wait(self, most: int, picture: tuple[int, Run, Result]) -> None:
        """Lets a picture wait for the end of its group, in place of the worst one if there are too many."""
        self._waiting.append(picture)
        if len(self._waiting) > most:
            worst = min(self._waiting, key=lambda item: _rank(item[2]))
            self._waiting.remove(worst)
            number, run, result = worst
            self._image_event(number, run, result, None)
            self._tell_saved(run, None)

    def flush(self) -> None:
        """Writes the pictures that wait for --keep, the best first."""
        best = sorted(self._waiting, key=lambda item: _rank(item[2]), reverse=True)
        self._waiting = []
        for number, run, result in best:
            self._finish(number, run, result)

    def _finish(self, number: int, run: Run, result: Result) -> None:
        """Saves one picture, shows it, prints its path and writes it into the history."""
        digest = files.save(result, self.place, job=run.job, label=run.label)
        percentile = result.clip.percentile if result.clip else None
        self._tell_saved(run, result.path)
        self.bar.pause()
        checks = self._seen.checks(result)
        missed = tuple(each.subject for each in checks if not each.holds)
        self.written.append(FinishedImage(result.seed, result.path, percentile, run.twin, missed))
        self._show(result)
        self._image_event(number, run, result, digest, checks)
        if result.path and self._history:
            remember(result, result.path, self.report, self.parent)

    def _tell_saved(self, run: Run, path: Path | None) -> None:
        if self.on_saved and run.job:
            self.on_saved(run.job, path)

    def _tell(self, notes: Iterable[Note]) -> None:
        """Says what nobody has been told yet."""
        for note in notes:
            if note not in self._warned:
                self._warned.add(note)
                (self.report.note if note.code in INFO_NOTES else self.report.warn)(note)

    def _show(self, result: Result) -> None:
        self._tell(result.warnings)
        if self._mode != "off":
            width = terminal_image.width_for(os.get_terminal_size(sys.stderr.fileno()).columns)
            print(terminal_image.render(result.image, self._mode, width), end="", file=sys.stderr, flush=True)
        score = score_line(result.clip, verbose=self.options.verbose)
        like = likeness_line(result.likeness) if self.options.verbose else ""
        self.report.say("  ".join(filter(None, (f"seed {result.seed}", f"{result.seconds:.1f} s", score, like))), "dim")
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
            withheld=False,
            twin=run.twin,
            **({} if result.likeness is None else {"likeness": result.likeness}),
            checks=[{"subject": each.subject, "holds": each.holds, **vars(each)} for each in checks],
            seconds=round(result.seconds, 3),
        )


def remember(result: Result, path: Path, report: Report, parent: int | None) -> None:
    """Writes a saved picture into the history; a history that cannot be written is a warning."""
    from clipgen import history

    settings = result.settings.replace(
        model=absolute_model(result.settings.model), vary=absolute_source(result.settings.vary)
    )
    try:
        history.record(path, settings, clip=result.metadata["clip"], parent=parent)
    except ClipgenError as error:
        report.warn(Note("history-not-written", None, str(error)))


def _show_mode(options: Options, configured: str) -> str:
    """Returns the protocol of pictures in the terminal, off where nobody could see one."""
    terminal = sys.stdout.isatty() and sys.stderr.isatty() and not (options.json or options.quiet)
    wanted = "off" if options.no_show else options.show or configured
    return terminal_image.choose(wanted, os.environ, terminal=terminal, ask_da1=terminal_image.ask_terminal)


def _rank(result: Result) -> tuple[float, float]:
    """Returns what --keep sorts by."""
    return (-1.0, result.likeness or -1.0) if result.clip is None else result.clip.rank


def from_pretrained(model: str, options: Options, wanted: Sequence[Settings]) -> Pipeline:
    """Loads a model that has been found on this machine before."""
    from clipgen.pipeline.pipeline import Pipeline

    return Pipeline.from_pretrained(model, options.device, options.dtype, offline=True, settings=wanted)
