"""Times several calls fairly: the calls alternate, every second round in reverse order, and are compared in pairs."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

MAX_NOISE = 0.05  # a benchmark is invalid if a call differs from itself by more than this share


@dataclass(frozen=True)
class Timing:
    """Duration of one call: wall-clock seconds, and CPU seconds summed over all threads."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Ratio:
    """Ratio of two series of durations: the median over the pairs, and the smallest and largest pair."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def time_alternating(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Timing]]:
    """Runs every call once per round, in reverse order in every second round, and returns `rounds` timings per call."""
    timings: dict[str, list[Timing]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls) if number % 2 == 0 else reversed(list(calls)):
            timings[name].append(time_call(calls[name]))
    return timings


def time_call(call: Callable[[], object]) -> Timing:
    """Runs a call once and returns its duration."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def ratio(numerators: list[float], denominators: list[float]) -> Ratio:
    """Divides two series of durations pair by pair; raises ValueError if their lengths differ."""
    pairs = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return Ratio(median(pairs), min(pairs), max(pairs))


def describe_machine() -> str:
    """Returns one line with the device, cores, threads, torch version and load average."""
    import torch

    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return f"{device}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}{load}"
