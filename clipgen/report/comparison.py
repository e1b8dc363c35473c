"""What a comparison says: each arm's seconds and scores, and the gain beside its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from clipgen.report.score_text import percent

if TYPE_CHECKING:
    from clipgen.clip.score import Score

LEAST = 1.0  # points of percentile below which nothing is claimed
UNCLEAR = "no clear difference"


@dataclass(frozen=True)
class Opinion:
    """One CLIP's view of an arm: the cosine to the prompt, and its percentile, None where it is not calibrated."""

    similarity: float
    percentile: float | None

    def __str__(self) -> str:
        return f"similarity {self.similarity:.3f}" if self.percentile is None else percent(self.percentile)


@dataclass(frozen=True)
class Row:
    """One arm of a comparison: `pictures` were drawn for it in `seconds`; `judge` is None where no CLIP can judge."""

    arm: str
    pictures: float
    seconds: float
    guide: Opinion
    judge: Opinion | None
    seed: int | None = None
    path: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns every field, JSON-safe."""
        opinions = {"guide": vars(self.guide), "judge": None if self.judge is None else vars(self.judge)}
        return {**vars(self), **opinions, "path": None if self.path is None else str(self.path)}


@dataclass(frozen=True)
class Verdict:
    """One arm against another: the gain in points of percentile, else in similarity, and the seconds it cost.

    `self_graded` = the CLIP that says so has steered: nothing is claimed.
    """

    arm: str
    against: str
    points: float | None
    similarity: float
    seconds: float
    self_graded: bool

    @property
    def clear(self) -> bool:
        """Whether it can be told which one is better."""
        return self.points is not None and abs(self.points) >= LEAST

    def __str__(self) -> str:
        cost = f"{abs(self.seconds):.1f} s {'more' if self.seconds >= 0 else 'less'}"
        graded = ", self-graded" if self.self_graded else ""
        return f"{self.arm} against {self.against}: {self._gain()}{graded}, for {cost}"

    def _gain(self) -> str:
        if self.points is None:
            return f"similarity {self.similarity:+.3f}, uncalibrated"
        return f"{self.points:+.1f} points" if self.clear else UNCLEAR

    def to_dict(self) -> dict[str, Any]:
        """Returns every field and `clear`, JSON-safe."""
        return {**vars(self), "clear": self.clear}


def opinion(score: Score) -> Opinion:
    """Returns what a comparison keeps of a score."""
    return Opinion(score.similarity, score.percentile)


def against(row: Row, other: Row) -> Verdict:
    """Returns one arm against another, by the judge if there is one, else by the guide itself."""
    judged = row.judge is not None and other.judge is not None
    after, before = (row.judge, other.judge) if row.judge and other.judge else (row.guide, other.guide)
    known = after.percentile is not None and before.percentile is not None
    points = (after.percentile or 0.0) - (before.percentile or 0.0) if known else None
    gain, cost = after.similarity - before.similarity, row.seconds - other.seconds
    return Verdict(row.arm, other.arm, points, gain, cost, self_graded=not judged)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Returns what is to be said of arms, the unguided one first: each one's gain, and that over a best-of."""
    unguided, *others = rows
    at_equal_seconds = [against(others[0], row) for row in others[1:] if row.pictures > 1]
    return [against(row, unguided) for row in others] + at_equal_seconds


def averaged(comparisons: Sequence[Sequence[Row]]) -> list[Row]:
    """Returns the arms' means over several comparisons."""
    return [
        Row(
            rows[0].arm if len({row.arm for row in rows}) == 1 else "best of several",
            mean(row.pictures for row in rows),
            mean(row.seconds for row in rows),
            _mean([row.guide for row in rows]),
            _mean([row.judge for row in rows if row.judge]) if rows[0].judge else None,
        )
        for rows in zip(*comparisons, strict=True)
    ]


def _mean(opinions: Sequence[Opinion]) -> Opinion:
    known = [each.percentile for each in opinions if each.percentile is not None]
    return Opinion(mean(each.similarity for each in opinions), mean(known) if len(known) == len(opinions) else None)
