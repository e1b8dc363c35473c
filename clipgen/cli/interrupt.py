"""Ctrl-C and SIGTERM: the first one stops within a step and keeps what is finished, the second one kills."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from clipgen.errors import Cancelled

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHOW_CURSOR = "\x1b[?25h"


class Interrupt:
    """Catches the first SIGINT or SIGTERM inside its block; the second one has the system's own effect.

    Inside `waiting` (a model loads, nothing is lost) the signal breaks off at once by KeyboardInterrupt; else it is
    only noted, and the loop asks `stopped` after each event.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._waiting = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._first) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, KeyboardInterrupt):
            raise self.cancelled([], "Stopped.") from None

    def _first(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if sys.stderr.isatty():
            sys.stderr.write(SHOW_CURSOR)
        if self._waiting:
            raise KeyboardInterrupt

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Marks a stretch that a signal may break off."""
        self._waiting = True
        yield
        self._waiting = False

    @property
    def stopped(self) -> bool:
        """Whether a signal has come."""
        return self.signum is not None

    def cancelled(self, results: Sequence[object], message: str) -> Cancelled:
        """Returns the error that ends the command: exit 130 for Ctrl-C, 143 for SIGTERM."""
        return Cancelled(message, results=results, exit_code=128 + (self.signum or signal.SIGINT))
