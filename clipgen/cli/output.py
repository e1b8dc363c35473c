"""What a command says and where: results on stdout, everything else on stderr, or one JSON object a line."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import typer

from clipgen.errors import Cancelled, ClipgenError
from clipgen.settings.settings import Note

SURROGATE = re.compile(r"[\ud800-\udfff]")  # a file name that is not UTF-8
ENVELOPE = "envelope"
STYLES = {"note": "dim", "warning": "yellow", "clipgen": "bold red"}


class Report:
    """The two streams of one command, as a context manager that turns a ClipgenError into one line and an exit code.

    With `json`, stdout holds NDJSON whose last line is the envelope, also after an error; `data` is what it carries.
    Without `events` the envelope is the only line.
    With `quiet`, stderr holds errors only. With `verbose`, errors come with their traceback.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False, verbose: bool = False, events: bool = True) -> None:
        self.json = json
        self.events = events
        self.quiet = quiet
        self.verbose = verbose
        self.data: dict[str, Any] = {}
        self.started = time.monotonic()

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

    def result(self, line: object) -> None:
        """Prints one result on stdout; with `json` the events and the envelope carry it instead."""
        if not self.json:
            print(line, flush=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Prints rows on stdout: aligned under dim headings in a terminal, tab-separated without headings in a pipe."""
        if self.json:
            return
        if not sys.stdout.isatty():
            print(*("\t".join(_flat(cell) for cell in row) for row in rows), sep="\n", end="\n", flush=True)
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(_flat(cell)) for cell in row))
        console = Console(highlight=False)
        with console.capture() as captured:
            console.print(table)
        print(captured.get(), end="", flush=True)

    def say(self, line: str, style: str = "") -> None:
        """Prints a remark for people on stderr."""
        if not self.quiet and not self.json:
            self._stderr(line, style)

    def note(self, note: Note) -> None:
        """Prints a note that is no warning, such as how the prompt was read."""
        self._remark("note", note)

    def warn(self, note: Note) -> None:
        """Prints a warning, or sends it as an event."""
        self._remark("warning", note)

    def _remark(self, label: str, note: Note) -> None:
        if self.json:
            self.event("warning", **note.to_dict())
        else:
            self.say(f"{label}: {note.message}", STYLES[label])

    def event(self, kind: str, **fields: Any) -> None:
        """Sends one NDJSON event; nothing without `json`."""
        if self.json and (self.events or kind == ENVELOPE):
            line = {"type": kind, "t": round(time.monotonic() - self.started, 3), **fields}
            text = json.dumps(line, ensure_ascii=False)
            print(json.dumps(line) if SURROGATE.search(text) else text, flush=True)

    def _fail(self, error: ClipgenError) -> None:
        if self.verbose:
            traceback.print_exception(error)
        self._stderr(error_line(error), STYLES["clipgen"] if not isinstance(error, Cancelled) else "")
        self._envelope(exit_code=error.exit_code, error=error.to_dict())

    def _envelope(self, *, exit_code: int, error: Mapping[str, Any] | None) -> None:
        outcome = {"schema": "envelope/1", "ok": not exit_code, "exit": exit_code, "data": self.data, "error": error}
        self.event(ENVELOPE, **outcome)

    @staticmethod
    def _stderr(line: str, style: str) -> None:
        if not style or not (sys.stderr.isatty() or os.environ.get("FORCE_COLOR")):
            print(line, file=sys.stderr, flush=True)
            return
        from rich.console import Console
        from rich.text import Text

        Console(stderr=True).print(Text(line, style=style), soft_wrap=True)


def error_line(error: Exception) -> str:
    """Returns an error as the one line people see, whatever its message holds."""
    return f"clipgen: {' '.join(str(error).split())}"


def _flat(cell: object) -> str:
    """Returns a table cell on one line: None as nothing, a list as its items, a switch as `true` or `false`."""
    if isinstance(cell, list | tuple):
        return ", ".join(map(_flat, cell))
    text = str(cell).lower() if isinstance(cell, bool) else str(cell)
    return "" if cell is None else " ".join(text.split())
