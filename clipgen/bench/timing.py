"""Times rival calls fairly: they take turns, back and forth, and are compared pair by pair."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

NOISE = 0.05  # by which a call may differ from itself before nothing else that was measured counts


@dataclass(frozen=True)
class Clock:
    """What one call took: seconds on the wall, and of the processor, all threads together."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Ratio:
    """How many times as long as another a call took: the median over pairs, and their range."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Clock]]:
    """Runs every call once a round, each second round backwards, and returns what each took."""
    taken: dict[str, list[Clock]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls) if number % 2 == 0 else reversed(list(calls)):
            taken[name].append(clocked(calls[name]))
    return taken


def clocked(call: Callable[[], object]) -> Clock:
    """Returns what one call takes."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return Clock(time.perf_counter() - wall, time.process_time() - processor)


def ratio(of: list[float], to: list[float]) -> Ratio:
    """Returns how the first series compares with the second, pair by pair."""
    pairs = [one / other for one, other in zip(of, to, strict=True)]
    return Ratio(median(pairs), min(pairs), max(pairs))


def machine() -> str:
    """Returns where and with what all this runs, in one line."""
    import torch

    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    what = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return f"{what}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}{load}"
