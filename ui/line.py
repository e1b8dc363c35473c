"""Who draws next: jobs stand in one line, first come, first served, and may be stopped in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from clipgen.errors import ClipgenError


class LineFull(ClipgenError):
    """Too many jobs wait already."""

    code = "line-full"


class Ticket:
    """One job's place: whose it is, and whether it was told to stop."""

    def __init__(self, visitor: str) -> None:
        self.visitor = visitor
        self.stopped = threading.Event()


class Line:
    """The line of all visitors: `most` may wait in all, `each` of one visitor; the first one draws, and waits not."""

    def __init__(self, most: int = 16, each: int = 2) -> None:
        self.most = most
        self.each = each
        self._tickets: list[Ticket] = []
        self._moved = threading.Condition()

    def __len__(self) -> int:
        return len(self._tickets)

    @contextmanager
    def join(self, visitor: str) -> Iterator[Ticket]:
        """Gives a visitor's job a place until the block ends; raises LineFull."""
        ticket = Ticket(visitor)
        with self._moved:
            waiting = self._tickets[1:]
            if len(waiting) >= self.most:
                raise LineFull(f"The line is full: {self.most} jobs wait. Try again in a minute.")
            if sum(other.visitor == visitor for other in waiting) >= self.each:
                raise LineFull(f"{self.each} of your jobs wait already. Stop one of them, or wait for it.")
            self._tickets.append(ticket)
        try:
            yield ticket
        finally:
            with self._moved:
                self._tickets.remove(ticket)
                self._moved.notify_all()

    def place(self, ticket: Ticket, patience: float = 0.0) -> int:
        """Returns how many are before a job, 0 = its turn; waits up to `patience` seconds for that to change."""
        with self._moved:
            place = self._tickets.index(ticket)
            if place and patience and not ticket.stopped.is_set():
                self._moved.wait(patience)
                place = self._tickets.index(ticket)
            return place

    def stop(self, visitor: str) -> int:
        """Tells all jobs of a visitor to stop, those that wait too; returns how many there were."""
        with self._moved:
            own = [ticket for ticket in self._tickets if ticket.visitor == visitor]
            for ticket in own:
                ticket.stopped.set()
            self._moved.notify_all()
        return len(own)
