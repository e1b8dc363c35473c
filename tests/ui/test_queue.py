"""The job queue: first in, first out; a full queue refuses jobs; cancelling reaches waiting jobs too."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from clipgen.ui.queue import Queue, QueueFull


def test_jobs_move_up_when_the_job_ahead_ends() -> None:
    queue = Queue()
    with ExitStack() as rest:
        with queue.add("a") as first:
            second, third = (rest.enter_context(queue.add(session)) for session in "bc")
            assert [queue.position(job) for job in (first, second, third)] == [0, 1, 2]
        assert [queue.position(job) for job in (second, third)] == [0, 1]
        assert len(queue) == 2
    assert len(queue) == 0


def test_a_full_queue_refuses_a_job_and_keeps_the_others() -> None:
    queue = Queue(max_waiting=2)
    message = r"The queue is full: 2 jobs are waiting\. Try again in a minute\."
    with queue.add("a"), queue.add("b"), queue.add("c"):
        with pytest.raises(QueueFull, match=message), queue.add("d"):
            pass
        assert len(queue) == 3


def test_one_session_cannot_fill_the_queue() -> None:
    queue = Queue(max_per_session=1)
    with queue.add("a"), queue.add("a"):
        with pytest.raises(QueueFull, match="1 of your jobs are waiting already"), queue.add("a"):
            pass
        with queue.add("b") as other:
            assert queue.position(other) == 2


def test_cancel_reaches_all_jobs_of_the_session_and_no_others() -> None:
    queue = Queue()
    with queue.add("a") as first, queue.add("b") as other, queue.add("a") as waiting:
        assert queue.cancel("a") == 2
        assert [job.cancelled.is_set() for job in (first, other, waiting)] == [True, False, True]
        assert queue.cancel("nobody") == 0
