"""Cancels a run in the middle of a step: the networks are wrapped, and each call checks for cancellation first."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from clipgen.errors import Cancelled

P = ParamSpec("P")
R = TypeVar("R")
IsCancelled = Callable[[], bool]


def never_cancelled() -> bool:
    """Returns False: the IsCancelled of a run that ends early only if its iterator is closed."""
    return False


def with_cancellation(function: Callable[P, R], is_cancelled: IsCancelled) -> Callable[P, R]:
    """Returns the function, which from now on raises Cancelled instead of running once `is_cancelled()` is true."""

    def cancellable(*args: P.args, **kwargs: P.kwargs) -> R:
        if is_cancelled():
            raise Cancelled
        return function(*args, **kwargs)

    return cancellable
