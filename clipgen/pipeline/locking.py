"""Threads that share a model take turns, and where memory runs out in one's turn it hears what did not fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import TypeVar

import torch

from clipgen.device import raise_out_of_memory

T = TypeVar("T")


class Turns:
    """One model on one device: whoever has a turn keeps the other threads out."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lock = Lock()

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Waits for a turn and has it inside; raises OutOfMemory that names `what` where that does not fit."""
        with self.lock, raise_out_of_memory(what, self.device):
            yield

    def each(self, items: Iterator[T]) -> Iterator[tuple[T, float]]:
        """Yields each item, made in a turn of its own, with the seconds it took; others may run in between."""
        while True:
            began = monotonic()
            with self.lock:
                item = next(items, None)
            if item is None:
                return
            yield item, monotonic() - began
