"""What the commands for image files share: their options, reading the files one by one, the lines they print."""

from __future__ import annotations

import json
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
        "--model", "-m", "--clip-model", metavar="NAME", help="A CLIP or SigLIP: storybook, ./folder or org/name.",
        rich_help_panel=PICTURES, autocompletion=complete.models,
    ),
]  # fmt: skip
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=MACHINE)
]
Offline = Annotated[bool, typer.Option("--offline", metavar="", help="Never use the network.", rich_help_panel=MACHINE)]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object per picture, then a summary.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", metavar="", help="Print all scores, and tracebacks.")]
STORYBOOK = "storybook"
Item = TypeVar("Item")


@dataclass(frozen=True)
class ClipChoice:
    """The CLIP model of a command, and where it runs."""

    model: str = STORYBOOK
    device: str = "auto"
    offline: bool = False

    def load(self) -> Scorer:
        """Loads the model; raises SettingsError, ModelNotFound, ModelError, OutOfMemory."""
        from clipgen.gallery import load_clip

        return load_clip(self.model, self.device, offline=self.offline)


class ImageWalk:
    """Iterates over the image files of a command. As a context manager it prints all rows, whatever ends the block.

    Files that cannot be read are reported, counted and skipped. At the end it raises ImageFileError if there were any,
    and Cancelled after a signal.
    """

    def __init__(self, report: Report, columns: Sequence[str]) -> None:
        self.report = report
        self.columns = columns
        self.count = 0
        self.errors: list[ImageFileError] = []
        self._paths: Sequence[Path] = ()
        self._rows: list[Sequence[object]] = []
        self._pictures: list[dict[str, Any]] = []  # for the envelope
        self._bytes_left = ENVELOPE_BYTES
        self._interrupt = Interrupt()
        self._bar = Bar(0, report)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rows:
            self.report.table(self.columns, self._rows)
        self.report.data = {"count": self.count, "unreadable": len(self.errors), "pictures": self._pictures}
        if error is None:
            self._raise_errors()

    def features(self, names: Sequence[str], clip: ClipChoice) -> Iterator[tuple[Path, Tensor, Scorer]]:
        """Yields each picture's path and unit image features [D], and the CLIP, which loads after the first file."""
        from clipgen.gallery import find_images

        paths = list(find_images(names))
        return self.iterate(paths, self._encode(paths, clip))

    def iterate(self, paths: Sequence[Path], items: Generator[Item, None, None]) -> Iterator[Item]:
        """Yields the items that a generator computes from files, with a progress bar; a signal ends the iteration."""
        self._paths = paths
        with self._interrupt as interrupt, self._bar, closing(items):
            for item in items:
                self.count += 1
                self._bar.encoded(self.count + len(self.errors), len(paths))
                yield item
                if interrupt.stopped:
                    return

    def _encode(self, paths: Sequence[Path], clip: ClipChoice) -> Generator[tuple[Path, Tensor, Scorer], None, None]:
        from clipgen.gallery import iter_image_features

        images = self.open_images(paths)
        if (first := next(images, None)) is None:
            return
        scorer = self.load(clip.model, clip.load)
        for path, features in iter_image_features(scorer.encoder, chain([first], images)):
            yield path, features, scorer

    def open_images(self, paths: Sequence[Path]) -> Iterator[tuple[Path, Image]]:
        """Yields the images that can be opened and records an error for each other file."""
        from clipgen.gallery import open_images

        return open_images(paths, self.add_error)

    def load(self, model: str, load: Callable[[], Item]) -> Item:
        """Returns the result of `load` while the bar shows the model's name; a signal aborts it."""
        self._bar.loading(f"Loading {model}")
        with self._interrupt.abortable():
            return load()

    def add_error(self, path: Path, error: ImageFileError) -> None:
        """Records a file that cannot be read."""
        self.errors.append(error)
        self.report.event("fault", path=str(path), message=str(error))
        if len(self._paths) > 1:
            self.report.say(error_line(error))

    def event(self, **fields: Any) -> None:
        """Prints the event of a picture and keeps it for the envelope while there is space."""
        self.report.event("picture", **fields)
        self._bytes_left -= len(json.dumps(fields))
        self._pictures += [fields] if self._bytes_left > 0 else []

    def row(self, *cells: object) -> None:
        """Prints a row: into a pipe at once, in a terminal at the end and aligned."""
        if sys.stdout.isatty():
            self._rows.append(cells)
        else:
            self.report.result("\t".join(map(str, cells)))

    def _raise_errors(self) -> None:
        if self._interrupt.stopped:
            line = f"Stopped after {self.count:,} of {len(self._paths):,} pictures."
            raise self._interrupt.cancelled([], line)
        if not self._paths:
            raise ImageFileError("No PNG, JPEG or WebP file found.")
        if len(self._paths) == 1 and self.errors:
            raise self.errors[0]
        if self.errors:
            raise ImageFileError(f"{len(self.errors):,} of {len(self._paths):,} pictures could not be read.")


def warn_cut(report: Report, scorer: Scorer, texts: Sequence[str]) -> None:
    """Warns about texts that are longer than the CLIP model's limit."""
    for text in texts:
        if scorer.encoder.is_truncated(text):
            limit = scorer.encoder.text_limit
            report.warn(
                Note("prompt-cut", "prompt", f"'{printable(text)}' is longer than the {limit} tokens CLIP reads")
            )
