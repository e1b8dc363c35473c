"""Stopping inside a step: a step takes many passes through the networks, and between two of them somebody is heard."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from clipgen.errors import Cancelled

P = ParamSpec("P")
R = TypeVar("R")
Stopped = Callable[[], bool]


def never() -> bool:
    """A Stopped of a run that nobody can stop but by closing it."""
    return False


def heeding(work: Callable[P, R], stopped: Stopped) -> Callable[P, R]:
    """Returns the work of one pass, which asks before it begins, and raises Cancelled if it is to stop."""

    def asking(*args: P.args, **kwargs: P.kwargs) -> R:
        if stopped():
            raise Cancelled
        return work(*args, **kwargs)

    return asking
