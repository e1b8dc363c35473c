"""The output of a command: results on stdout and messages on stderr, or with --json one JSON object per line."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import typer

from clipgen.cli.tables import flat, layout
from clipgen.errors import Cancelled, ClipgenError
from clipgen.settings.settings import Note

SURROGATE = re.compile(r"[\ud800-\udfff]")  # part of a file name that is not UTF-8
ENVELOPE = "envelope"
STYLES = {"note": "dim", "warning": "yellow", "clipgen": "bold red"}


class Report:
    """The output of one command. As a context manager it turns a ClipgenError into one line and an exit code.

    Args:
        json: Print NDJSON on stdout. The last line is the envelope, also after an error; `data` is its content.
        quiet: Print only errors on stderr.
        verbose: Print tracebacks of errors.
        events: False prints the envelope as the only JSON line.

    `before_print` is called before each text output, so that a progress bar can leave its line.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False, verbose: bool = False, events: bool = True) -> None:
        self.json = json
        self.events = events
        self.quiet = quiet
        self.verbose = verbose
        self.data: dict[str, Any] = {}
        self.started = time.monotonic()
        self.before_print: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            error = Cancelled("Stopped before the first picture.")
        if isinstance(error, ClipgenError):
            self._fail(error)
            raise typer.Exit(error.exit_code) from None
        if error is None or (isinstance(error, typer.Exit) and not error.exit_code):
            self._envelope(exit_code=0, error=None)
        elif not isinstance(error, BrokenPipeError | typer.Exit):
            self._envelope(exit_code=1, error={"code": "internal-error", "message": repr(error)[:2000]})

    @property
    def animated(self) -> bool:
        """Whether a progress bar can be shown: stderr is a terminal that can move its cursor."""
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        return terminal and not (self.quiet or self.json)

    def result(self, line: object) -> None:
        """Prints one result on stdout; with `json` the events and the envelope contain it instead."""
        if not self.json:
            self.before_print()
            print(line, flush=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Prints rows on stdout: aligned below dim headings in a terminal, tab-separated without headings in a pipe."""
        rows = list(rows)
        if self.json or not rows:
            return
        self.before_print()
        if not sys.stdout.isatty():
            print(*("\t".join(flat(cell) for cell in row) for row in rows), sep="\n", end="\n", flush=True)
            return
        head, *lines = layout(columns, rows, shutil.get_terminal_size().columns)
        if any(columns):
            _print_styled(head, "dim", sys.stdout)
        print(*(lines if any(columns) else [head, *lines]), sep="\n", flush=True)

    def picture(self, text: str) -> None:
        """Prints the escape sequence of a picture on stderr."""
        self.before_print()
        print(text, end="", file=sys.stderr, flush=True)

    def say(self, line: str, style: str = "") -> None:
        """Prints a message on stderr."""
        if not self.quiet and not self.json:
            self._stderr(line, style)

    def note(self, note: Note) -> None:
        """Prints a note that is no warning, for example how the prompt was read."""
        self._message("note", note)

    def warn(self, note: Note) -> None:
        """Prints a warning, or sends it as an event."""
        self._message("warning", note)

    def _message(self, label: str, note: Note) -> None:
        if self.json:
            self.event("warning", **note.to_dict())
        else:
            self.say(f"{label}: {note.message}", STYLES[label])

    def event(self, kind: str, **fields: Any) -> None:
        """Prints one NDJSON event; nothing without `json`."""
        if self.json and (self.events or kind == ENVELOPE):
            line = {"type": kind, "t": round(time.monotonic() - self.started, 3), **fields}
            text = json.dumps(line, ensure_ascii=False)
            print(json.dumps(line) if SURROGATE.search(text) else text, flush=True)

    def _fail(self, error: ClipgenError) -> None:
        if self.verbose:
            self.before_print()
            traceback.print_exception(error)
        self._stderr(error_line(error), STYLES["clipgen"] if not isinstance(error, Cancelled) else "")
        self._envelope(exit_code=error.exit_code, error=error.to_dict())

    def _envelope(self, *, exit_code: int, error: Mapping[str, Any] | None) -> None:
        envelope = {"schema": "envelope/1", "ok": not exit_code, "exit": exit_code, "data": self.data, "error": error}
        self.event(ENVELOPE, **envelope)

    def _stderr(self, line: str, style: str) -> None:
        self.before_print()
        _print_styled(line, style, sys.stderr)


def _print_styled(line: str, style: str, stream: Any) -> None:
    """Prints a line, styled if the stream is a terminal or FORCE_COLOR is set."""
    if not style or not (stream.isatty() or os.environ.get("FORCE_COLOR")):
        print(line, file=stream, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    Console(file=stream).print(Text(line, style=style), soft_wrap=True)


def error_line(error: Exception) -> str:
    """Returns an error as one line for the terminal."""
    return f"clipgen: {' '.join(str(error).split())}"
