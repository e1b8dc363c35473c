"""The bar of a running generation: steps, pace, time left and a sparkline of CLIP's opinion."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from statistics import mean
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from clipgen.pipeline.result import Step

LEVELS = "▁▂▃▄▅▆▇█"
SPARKS = 8  # characters of the sparkline
FRAMES = 10  # redraws a second
ECHO = 3  # columns left free for the terminal's ^C, which would push a full line up


def sparkline(values: Sequence[float], width: int = SPARKS) -> str:
    """Returns the values as blocks from lowest to highest, the latest `width` of them evenly picked."""
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


def pace(seconds: float) -> str:
    """Returns seconds a step as `1.8 s/step`, or steps a second when there are several."""
    return f"{1 / seconds:.1f} steps/s" if 0 < seconds < 0.5 else f"{seconds:.1f} s/step"


def clip_line(similarities: Sequence[float], percentiles: Sequence[float]) -> str:
    """Returns `CLIP ▁▂▄▆█ 61→96 %`, with similarities where the score is not calibrated, "" before the first one."""
    if percentiles:
        return f"CLIP {sparkline(percentiles)} {percentiles[0]:.0f}→{percentiles[-1]:.0f} %"
    if similarities:
        return f"CLIP {sparkline(similarities)} {similarities[0]:.2f}→{similarities[-1]:.2f}"
    return ""


class Estimate:
    """How long all runs still take: what the run in hand says, and the pictures after it at the pace so far."""

    def __init__(self, pictures: int) -> None:
        self._after = pictures
        self._run = 0
        self._taken: list[float] = []
        self._began = time.monotonic()

    def begin(self, pictures: int) -> None:
        """Starts a run of so many pictures."""
        self._run = pictures
        self._after -= pictures
        self._began = time.monotonic()

    def finish(self, seconds: float) -> None:
        """Takes the seconds that one picture took."""
        self._taken.append(seconds)

    def left(self, eta: float | None) -> float | None:
        """Returns the seconds until the last picture is done; `eta` is what the run still takes, None = unknown yet."""
        if eta is None:
            return None
        here = (time.monotonic() - self._began + eta) / max(1, self._run)
        return eta + self._after * (mean(self._taken) if self._taken else here)


class Bar:
    """A one-line bar on stderr that goes away when it is done; nothing at all unless `shown`.

    Use as a context manager around all runs; `loading` shows a message, `step` follows the pipeline's Step events. Of
    pictures that are denoised together the first one is followed.
    """

    def __init__(self, pictures: int, *, shown: bool) -> None:
        self.pictures = pictures
        self.shown = shown
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._followed: int | None = None
        self._similarities: list[float] = []
        self._percentiles: list[float] = []

    def __enter__(self) -> Self:
        if self.shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            console = Console(file=sys.stderr, highlight=False)
            console.width -= ECHO
            self._progress = Progress(
                SpinnerColumn(),
                BarColumn(bar_width=24),
                TextColumn("{task.description}", markup=False),
                console=console,
                transient=True,
                refresh_per_second=FRAMES,
                redirect_stdout=False,  # rich would send the paths of stdout to stderr
                redirect_stderr=False,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def loading(self, message: str) -> None:
        """Shows a message beside a pulsing bar."""
        self._draw(message, completed=0, total=None)

    def looked(self, done: int, total: int) -> None:
        """Shows how many of some pictures CLIP has seen."""
        self._draw(f"picture {done:,} of {total:,}", completed=done, total=total)

    def pause(self) -> None:
        """Takes the bar away so that something else can be printed; the next step brings it back."""
        self._followed = None
        if self._progress:
            self._progress.stop()

    def step(self, step: Step, picture: int, left: float | None, label: str = "") -> None:
        """Shows a step, with `left` seconds for all pictures: `12/30  1.8 s/step  ETA 0:33  CLIP ▁▂▄▆█ 61→96 %`.

        `label` says before it what is being drawn.
        """
        if not self.shown:
            return
        if self._followed is None:
            self._followed, self._similarities, self._percentiles = picture, [], []
        if picture == self._followed:
            self._similarities += [step.similarity] if step.similarity is not None else []
            self._percentiles += [step.percentile] if step.percentile is not None else []
            parts = filter(None, [label, *self._parts(step, left)])
            self._draw("  ".join(parts), completed=step.index + 1, total=step.steps)

    def _parts(self, step: Step, left: float | None) -> list[str]:
        return [
            f"picture {(self._followed or 0) + 1} of {self.pictures}" if self.pictures > 1 else "",
            f"{step.index + 1}/{step.steps}",
            pace(step.seconds),
            f"ETA {clock(left)}" if left is not None else "",
            clip_line(self._similarities, self._percentiles),
        ]

    def _draw(self, text: str, *, completed: int, total: int | None) -> None:
        if self._progress is None:
            return
        self._progress.start()
        if self._task is None:
            self._task = self._progress.add_task(text, total=total)
        self._progress.update(self._task, description=text, completed=completed, total=total)
