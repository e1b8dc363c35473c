"""The job queue: one job runs at a time, first in, first out; queued and running jobs can be cancelled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from clipgen.errors import ClipgenError


class QueueFull(ClipgenError):
    """The queue accepts no further job at the moment."""

    code = "queue-full"


class Job:
    """An entry of the queue: the browser session that owns it, and whether it was cancelled."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.cancelled = threading.Event()


class Queue:
    """The jobs of all sessions. The first job runs, the others wait.

    Args:
        max_waiting: How many jobs may wait in total.
        max_per_session: How many jobs of one session may wait.
    """

    def __init__(self, max_waiting: int = 16, max_per_session: int = 2) -> None:
        self.max_waiting = max_waiting
        self.max_per_session = max_per_session
        self._jobs: list[Job] = []
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._jobs)

    @contextmanager
    def add(self, session: str) -> Iterator[Job]:
        """Adds a job for the duration of the `with` block; raises QueueFull."""
        job = Job(session)
        with self._changed:
            self._check_capacity(session)
            self._jobs.append(job)
        try:
            yield job
        finally:
            with self._changed:
                self._jobs.remove(job)
                self._changed.notify_all()

    def _check_capacity(self, session: str) -> None:
        waiting = self._jobs[1:]
        if len(waiting) >= self.max_waiting:
            raise QueueFull(f"The queue is full: {self.max_waiting} jobs are waiting. Try again in a minute.")
        if sum(job.session == session for job in waiting) >= self.max_per_session:
            raise QueueFull(f"{self.max_per_session} of your jobs are waiting already. Stop one of them, or wait.")

    def position(self, job: Job, timeout: float = 0.0) -> int:
        """Returns how many jobs are ahead of a job, 0 if it may run; waits up to `timeout` seconds for a change."""
        with self._changed:
            position = self._jobs.index(job)
            if position and timeout and not job.cancelled.is_set():
                self._changed.wait(timeout)
                position = self._jobs.index(job)
            return position

    def cancel(self, session: str) -> int:
        """Cancels all jobs of a session, running and waiting ones; returns how many there were."""
        with self._changed:
            jobs = [job for job in self._jobs if job.session == session]
            for job in jobs:
                job.cancelled.set()
            self._changed.notify_all()
        return len(jobs)
