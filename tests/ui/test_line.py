"""The line of jobs: first come first served, full lines say so, stopping reaches those that wait."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from clipgen.ui.line import Line, LineFull


def test_jobs_move_up_as_those_before_them_end() -> None:
    line = Line()
    with line.join("b") as second, ExitStack() as stack:
        stack.enter_context(line.join("c"))
        assert (line.place(second), len(line)) == (0, 2)
    line = Line()
    with ExitStack() as rest:
        with line.join("a"):
            second, third = (rest.enter_context(line.join(name)) for name in "bc")
            assert [line.place(second), line.place(third)] == [1, 2]
        assert [line.place(second), line.place(third)] == [0, 1]
    assert len(line) == 0


def test_a_full_line_says_so_and_loses_nobody() -> None:
    line = Line(most=2)
    with line.join("a"), line.join("b"), line.join("c"):
        with pytest.raises(LineFull, match=r"The line is full: 2 jobs wait\. Try again in a minute\."), line.join("d"):
            pass
        assert len(line) == 3


def test_one_visitor_cannot_fill_it() -> None:
    line = Line(each=1)
    with line.join("a"), line.join("a"):
        with pytest.raises(LineFull, match="1 of your jobs wait already"), line.join("a"):
            pass
        with line.join("b") as other:
            assert line.place(other) == 2


def test_stopping_reaches_ones_own_jobs_only() -> None:
    line = Line()
    with line.join("a") as first, line.join("b") as other, line.join("a") as waiting:
        assert line.stop("a") == 2
        assert [job.stopped.is_set() for job in (first, other, waiting)] == [True, False, True]
        assert line.stop("nobody") == 0
