"""The progress bar of a running generation: step, speed, time left and a sparkline of the CLIP score."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from statistics import mean
from types import TracebackType
from typing import TYPE_CHECKING, Self

from clipgen.cli.output import Report

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from clipgen.pipeline.result import Step

LEVELS = "▁▂▃▄▅▆▇█"
SPARKS = 8  # characters of the sparkline
REFRESH_RATE = 10  # redraws per second
MARGIN = 3  # free columns for the terminal's ^C, which would otherwise wrap a full line
BAR_WIDTHS = (6, 24)  # in terminals under and from WIDE columns
WIDE = 100


def sparkline(values: Sequence[float], width: int = SPARKS) -> str:
    """Returns values as block characters between their minimum and maximum, at most `width` evenly spaced ones."""
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    spread = high - low
    return "".join(LEVELS[round((v - low) / spread * (len(LEVELS) - 1)) if spread else 0] for v in values)


def clock(seconds: float) -> str:
    """Returns seconds as `0:33`, `12:05` or `1:00:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def speed(seconds: float) -> str:
    """Returns the duration of a step as `1.8 s/step`, or as `4.0 steps/s` if it is under half a second."""
    return f"{1 / seconds:.1f} steps/s" if 0 < seconds < 0.5 else f"{seconds:.1f} s/step"


def clip_curve(similarities: Sequence[float], percentiles: Sequence[float]) -> str:
    """Returns `CLIP ▁▂▄▆█ 61→96%`; similarities replace percentiles that are not calibrated; "" without values."""
    if percentiles:
        return f"CLIP {sparkline(percentiles)} {percentiles[0]:.0f}→{percentiles[-1]:.0f}%"
    if similarities:
        return f"CLIP {sparkline(similarities)} {similarities[0]:.2f}→{similarities[-1]:.2f}"
    return ""


class ProgressEstimate:
    """Estimates the time until all runs are finished, from the current run and the mean of finished pictures."""

    def __init__(self, pictures: int) -> None:
        self._pictures_after = pictures
        self._pictures_in_run = 0
        self._durations: list[float] = []
        self._started = time.monotonic()

    def begin(self, pictures: int) -> None:
        """Starts a run of that many pictures."""
        self._pictures_in_run = pictures
        self._pictures_after -= pictures
        self._started = time.monotonic()

    def finish(self, seconds: float) -> None:
        """Records the duration of one picture."""
        self._durations.append(seconds)

    def left(self, eta: float | None) -> float | None:
        """Returns the seconds until all pictures are finished; `eta` is what the current run still takes, if known."""
        if eta is None:
            return None
        current = (time.monotonic() - self._started + eta) / max(1, self._pictures_in_run)
        return eta + self._pictures_after * (mean(self._durations) if self._durations else current)


class Bar:
    """A one-line progress bar on stderr that disappears when it is done; invisible if the report is not animated.

    To be used as a context manager around all runs. The bar has its line to itself: each output of the report hides it
    and the next update shows it again. Of pictures that are denoised together it follows the first one.
    """

    def __init__(self, pictures: int, report: Report) -> None:
        self.pictures = pictures
        self.report = report
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._followed: int | None = None
        self._similarities: list[float] = []
        self._percentiles: list[float] = []

    def __enter__(self) -> Self:
        if self.report.animated:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
            from rich.table import Column

            console = Console(file=sys.stderr, highlight=False)
            console.width -= MARGIN
            self._progress = Progress(
                SpinnerColumn(),
                BarColumn(bar_width=BAR_WIDTHS[console.width >= WIDE - MARGIN]),
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
                console=console,
                transient=True,
                refresh_per_second=REFRESH_RATE,
                redirect_stdout=False,  # rich would send the paths of stdout to stderr
                redirect_stderr=False,
            )
            self.report.before_print = self.hide
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hide()

    def hide(self) -> None:
        """Removes the bar from the screen until the next update."""
        if self._progress:
            self._progress.stop()

    def loading(self, message: str) -> None:
        """Shows a message and an indeterminate bar."""
        self._update(message, completed=0, total=None)

    def encoded(self, done: int, total: int) -> None:
        """Shows how many pictures of a folder CLIP has encoded."""
        self._update(f"picture {done:,} of {total:,}", completed=done, total=total)

    def next_picture(self) -> None:
        """Makes the bar follow the picture of the next step."""
        self._followed = None

    def step(self, step: Step, picture: int, left: float | None, label: str = "") -> None:
        """Shows a step as `12/30  1.8 s/step  ETA 0:33  CLIP ▁▂▄▆█ 61→96%`.

        Args:
            step: The event of the pipeline.
            picture: The number of its picture among all runs, from 0.
            left: Seconds until all pictures are finished, None if unknown.
            label: A text in front, for example which variant of a comparison is drawn.
        """
        if not self._progress:
            return
        if self._followed is None:
            self._followed, self._similarities, self._percentiles = picture, [], []
        if picture == self._followed:
            self._similarities += [step.similarity] if step.similarity is not None else []
            self._percentiles += [step.percentile] if step.percentile is not None else []
            parts = filter(None, [label, *self._parts(step, left)])
            self._update("  ".join(parts), completed=step.index + 1, total=step.steps)

    def _parts(self, step: Step, left: float | None) -> list[str]:
        return [
            f"picture {(self._followed or 0) + 1} of {self.pictures}" if self.pictures > 1 else "",
            f"{step.index + 1}/{step.steps}",
            speed(step.seconds),
            f"ETA {clock(left)}" if left is not None else "",
            clip_curve(self._similarities, self._percentiles),
        ]

    def _update(self, text: str, *, completed: int, total: int | None) -> None:
        if self._progress is None:
            return
        self._progress.start()
        if self._task is None:
            self._task = self._progress.add_task(text, total=total)
        self._progress.update(self._task, description=text, completed=completed, total=total)
