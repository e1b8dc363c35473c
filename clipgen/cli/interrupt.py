"""Ctrl-C and SIGTERM: the first signal stops after the current step, the second one ends the process."""

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
    """Catches the first SIGINT or SIGTERM inside its block; the second one has its default effect.

    Inside `abortable` (a model is loading, nothing is lost) the signal raises KeyboardInterrupt at once. Elsewhere it
    is only recorded, and the loop reads `stopped` after each event.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._abortable = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, KeyboardInterrupt):
            raise self.cancelled([], "Stopped.") from None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if sys.stderr.isatty():
            sys.stderr.write(SHOW_CURSOR)
        if self._abortable:
            raise KeyboardInterrupt

    @contextmanager
    def abortable(self) -> Iterator[None]:
        """Marks a block that a signal aborts at once."""
        self._abortable = True
        yield
        self._abortable = False

    @property
    def stopped(self) -> bool:
        """Whether a signal was received."""
        return self.signum is not None

    def cancelled(self, results: Sequence[object], message: str) -> Cancelled:
        """Returns the error that ends the command, with exit code 130 for Ctrl-C and 143 for SIGTERM."""
        return Cancelled(message, results=results, exit_code=128 + (self.signum or signal.SIGINT))
