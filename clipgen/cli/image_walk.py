"""What the commands that show CLIP pictures have in common: their flags, the walk over files, the lines they print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import typer

from clipgen.cli import complete
from clipgen.cli.execute import configure_hub_progress
from clipgen.cli.interrupt import Interrupt
from clipgen.cli.outcome import ENVELOPE_BYTES
from clipgen.cli.output import Report, error_line
from clipgen.cli.progress import Bar
from clipgen.errors import ImageFileError
from clipgen.settings.checks import printable
from clipgen.settings.settings import Note

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from clipgen.clip.score import Scorer

PICTURES, MACHINE = "Pictures", "Machine"
Images = Annotated[
    list[str], typer.Argument(metavar="IMAGE...", help="PNG, JPEG, WebP, or folders of them.", rich_help_panel=PICTURES)
]
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", "--clip-model", metavar="NAME", help="A CLIP or SigLIP: storybook, ./folder, org/name.",
        rich_help_panel=PICTURES, autocompletion=complete.models,
    ),
]  # fmt: skip
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=MACHINE)
]
Offline = Annotated[
    bool, typer.Option("--offline", metavar="", help="Make no network attempt.", rich_help_panel=MACHINE)
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="A JSON object a picture, then one of all.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", metavar="", help="All numbers; tracebacks of errors.")]
STORYBOOK = "storybook"
Item = TypeVar("Item")


@dataclass(frozen=True)
class Clip:
    """Which CLIP looks, and where it runs."""

    model: str = STORYBOOK
    device: str = "auto"
    offline: bool = False

    def load(self, report: Report) -> Scorer:
        """Loads it; raises SettingsError, ModelNotFound, ModelError, OutOfMemory."""
        from clipgen.gallery import load_clip

        configure_hub_progress(report)
        return load_clip(self.model, self.device, offline=self.offline)


class ImageWalk:
    """A walk over the pictures that a command names, as a context manager that loses no line, whatever ends it.

    Pictures that cannot be read are told, counted and passed over. At the end it raises ImageFileError if there were
    such, and Cancelled if a signal came.
    """

    def __init__(self, report: Report, columns: Sequence[str]) -> None:
        self.report = report
        self.columns = columns
        self.count = 0
        self.faults: list[ImageFileError] = []
        self._paths: Sequence[Path] = ()
        self._rows: list[Sequence[object]] = []
        self._told: list[dict[str, Any]] = []
        self._room = ENVELOPE_BYTES
        self._interrupt = Interrupt()
        shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not report.json
        self._bar = Bar(0, shown=shown)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rows:
            self.report.table(self.columns, self._rows)
        self.report.data = {"count": self.count, "unreadable": len(self.faults), "pictures": self._told}
        if error is None:
            self._end()

    def seen(self, names: Sequence[str], clip: Clip) -> Iterator[tuple[Path, Tensor, Scorer]]:
        """Yields each picture's path and unit vector [D] with the CLIP that saw it, which loads once one is open."""
        from clipgen.gallery import find_images

        paths = list(find_images(names))
        return self.over(paths, self._looked(paths, clip))

    def over(self, paths: Sequence[Path], seen: Generator[Item, None, None]) -> Iterator[Item]:
        """Yields what comes of a walk over pictures, one at a time, with a bar; a signal ends it."""
        self._paths = paths
        with self._interrupt as interrupt, self._bar, closing(seen):
            for item in seen:
                self.count += 1
                self._bar.looked(self.count + len(self.faults), len(paths))
                yield item
                if interrupt.stopped:
                    return

    def _looked(self, paths: Sequence[Path], clip: Clip) -> Generator[tuple[Path, Tensor, Scorer], None, None]:
        from clipgen.gallery import iter_image_features

        pictures = self.open_images(paths)
        if (first := next(pictures, None)) is None:
            return
        scorer = self.loaded(clip.model, lambda: clip.load(self.report))
        for path, features in iter_image_features(scorer.encoder, chain([first], pictures)):
            yield path, features, scorer

    def open_images(self, paths: Sequence[Path]) -> Iterator[tuple[Path, Image]]:
        """Yields the pictures that can be opened; the others are taken as faults."""
        from clipgen.gallery import open_images

        return open_images(paths, self.fault)

    def loaded(self, model: str, load: Callable[[], Item]) -> Item:
        """Returns what `load` loads of a model, told in the bar; a signal waits until it is there."""
        self._bar.loading(f"Loading {model}")
        with self._interrupt.waiting():
            return load()

    def fault(self, path: Path, error: ImageFileError) -> None:
        """Takes a picture that cannot be read."""
        self.faults.append(error)
        self.report.event("fault", path=str(path), message=str(error))
        if len(self._paths) > 1:
            self.report.say(error_line(error))

    def tell(self, **facts: Any) -> None:
        """Sends what is known of a picture as an event, and keeps it for the envelope as long as that has room."""
        self.report.event("picture", **facts)
        self._room -= len(json.dumps(facts))
        self._told += [facts] if self._room > 0 else []

    def row(self, *cells: object) -> None:
        """Prints a line of cells: at once into a pipe, at the end and aligned in a terminal."""
        if sys.stdout.isatty():
            self._rows.append(cells)
        else:
            self.report.result("\t".join(map(str, cells)))

    def _end(self) -> None:
        if self._interrupt.stopped:
            line = f"Stopped after {self.count:,} of {len(self._paths):,} pictures."
            raise self._interrupt.cancelled([], line)
        if not self._paths:
            raise ImageFileError("There is no PNG, JPEG or WebP picture.")
        if len(self._paths) == 1 and self.faults:
            raise self.faults[0]
        if self.faults:
            raise ImageFileError(f"{len(self.faults):,} of {len(self._paths):,} pictures could not be read.")


def warn_cut(report: Report, scorer: Scorer, texts: Sequence[str]) -> None:
    """Warns of texts that a CLIP reads in part only."""
    for text in texts:
        if scorer.encoder.is_truncated(text):
            limit = scorer.encoder.text_limit
            report.warn(
                Note("prompt-cut", "prompt", f"'{printable(text)}' is longer than the {limit} tokens CLIP reads")
            )
