"""What a measurement tells: figures, each with its number of cases, what chance gives and the floor it should reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

SURE = 1.96  # standard errors that hold 95 of 100


@dataclass(frozen=True)
class Figure:
    """One number of a part: a share of `count` cases unless its name says otherwise.

    `error` is the half width of its 95 % interval, `chance` what guessing gives, `floor` the least that is asked for
    and `ceiling` the most that can be reached; None where there is no such number.
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
        """Whether the floor is reached, None where there is none."""
        return None if self.floor is None else self.value >= self.floor


def share(
    part: str,
    name: str,
    hits: Sequence[bool],
    *,
    chance: float | None = None,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Figure:
    """Returns the share of hits with its interval, that of a binomial (Agresti and Coull 1998), 0 of no cases."""
    count = len(hits)
    value = sum(hits) / count if count else 0.0
    return Figure(part, name, value, count, half_width(sum(hits), count), chance, floor, ceiling)


def half_width(hits: int, count: int) -> float:
    """Returns the half width of the 95 % interval of a share, which two hits and two misses more make honest."""
    middle = (hits + 2) / (count + 4)
    return SURE * sqrt(middle * (1 - middle) / (count + 4))


COLUMNS = ("part", "figure", "value", "+-", "cases", "chance", "ceiling", "floor", "")


def table(figures: Sequence[Figure]) -> list[tuple[str, ...]]:
    """Returns the cells of COLUMNS, a row a figure."""
    return [
        (
            each.part,
            each.name,
            f"{each.value:.3f}",
            _number(each.error),
            str(each.count),
            _number(each.chance),
            _number(each.ceiling),
            _number(each.floor),
            {True: "reached", False: "below", None: ""}[each.reached],
        )
        for each in figures
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
