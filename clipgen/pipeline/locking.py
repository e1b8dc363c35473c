"""The lock that lets threads share one model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import TypeVar

import torch

from clipgen.device import raise_out_of_memory

T = TypeVar("T")


class ModelLock:
    """Serialises the work of several threads on one model and its device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lock = Lock()

    @contextmanager
    def hold(self, what: str) -> Iterator[None]:
        """Holds the lock; a lack of memory inside raises OutOfMemory with the message that `what` does not fit."""
        with self.lock, raise_out_of_memory(what, self.device):
            yield

    def timed(self, items: Iterator[T]) -> Iterator[tuple[T, float]]:
        """Yields each item with the seconds it took; the lock is held only while an item is computed."""
        while True:
            start = monotonic()
            with self.lock:
                item = next(items, None)
            if item is None:
                return
            yield item, monotonic() - start
