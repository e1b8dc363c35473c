"""The numbers of a quality report: each with its number of cases, 95% interval, chance level and target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

Z_95 = 1.96  # standard errors in half a 95% interval


@dataclass(frozen=True)
class Metric:
    """One number of a part of the benchmark: a share of `count` cases unless its name says otherwise.

    `error` is the half-width of the 95% interval, `chance` the value of random guessing, `floor` the target and
    `ceiling` the highest reachable value; None if there is no such number.
    """

    part: str
    name: str
    value: float
    count: int
    error: float | None = None
    chance: float | None = None
    floor: float | None = None
    ceiling: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the value reaches the floor; None without a floor."""
        return None if self.floor is None else self.value >= self.floor

    @property
    def is_reachable(self) -> bool:
        """Whether the highest reachable value is not below the floor; True if either is unknown."""
        return self.floor is None or self.ceiling is None or self.ceiling >= self.floor


def share(
    part: str,
    name: str,
    hits: Sequence[bool],
    *,
    chance: float | None = None,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Metric:
    """Returns the share of true values with its binomial interval; 0 if there are no cases."""
    count = len(hits)
    value = sum(hits) / count if count else 0.0
    return Metric(part, name, value, count, half_width(sum(hits), count), chance, floor, ceiling)


def half_width(hits: int, count: int) -> float:
    """Returns the half-width of the 95% interval of a share: two hits and two misses are added (Agresti-Coull 1998)."""
    adjusted = (hits + 2) / (count + 4)
    return Z_95 * sqrt(adjusted * (1 - adjusted) / (count + 4))


COLUMNS = ("part", "metric", "value", "+-", "cases", "chance", "ceiling", "floor", "")


def table(metrics: Sequence[Metric]) -> list[tuple[str, ...]]:
    """Returns the cells of COLUMNS, one tuple per metric."""
    return [
        (
            metric.part,
            metric.name,
            f"{metric.value:.3f}",
            _number(metric.error),
            str(metric.count),
            _number(metric.chance),
            _number(metric.ceiling),
            _number(metric.floor),
            {True: "reached", False: "below", None: ""}[metric.reached],
        )
        for metric in metrics
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
