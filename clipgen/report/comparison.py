"""The result of a comparison: seconds and scores of each variant, and gain and cost of one against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from clipgen.report.score_text import percent

if TYPE_CHECKING:
    from clipgen.clip.score import Score

MIN_GAIN = 1.0  # difference of percentiles below which no gain is claimed
UNCLEAR = "no clear difference"


@dataclass(frozen=True)
class ScoreSummary:
    """The score of a variant by one CLIP: cosine similarity and percentile, None if it is not calibrated."""

    similarity: float
    percentile: float | None

    def __str__(self) -> str:
        return f"similarity {self.similarity:.3f}" if self.percentile is None else percent(self.percentile)


@dataclass(frozen=True)
class ComparisonRow:
    """One variant of a comparison.

    Attributes:
        variant: The name of the variant.
        pictures: The number of pictures drawn for it, a mean if several comparisons were averaged.
        seconds: The time for all of them.
        guide: The score by the CLIP that guides.
        judge: The score by a CLIP that does not guide, None without one.
        seed: The seed of the picture.
        path: The file of the picture.
    """

    variant: str
    pictures: float
    seconds: float
    guide: ScoreSummary
    judge: ScoreSummary | None
    seed: int | None = None
    path: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields for JSON."""
        scores = {"guide": vars(self.guide), "judge": None if self.judge is None else vars(self.judge)}
        return {**vars(self), **scores, "path": None if self.path is None else str(self.path)}


@dataclass(frozen=True)
class Verdict:
    """One variant compared with another: the gain as a difference of percentiles and of similarities, and the cost.

    `self_graded` is True if the score is by the CLIP that guides; no gain is claimed then.
    """

    variant: str
    against: str
    points: float | None
    similarity: float
    seconds: float
    self_graded: bool

    @property
    def clear(self) -> bool:
        """Whether the difference is large enough to say which variant is better."""
        return self.points is not None and abs(self.points) >= MIN_GAIN

    def __str__(self) -> str:
        cost = f"{abs(self.seconds):.1f} s {'more' if self.seconds >= 0 else 'less'}"
        graded = ", self-graded" if self.self_graded else ""
        return f"{self.variant} against {self.against}: {self._gain()}{graded}, for {cost}"

    def _gain(self) -> str:
        if self.points is None:
            return f"similarity {self.similarity:+.3f}, uncalibrated"
        return f"{self.points:+.1f} points" if self.clear else UNCLEAR

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields and `clear` for JSON."""
        return {**vars(self), "clear": self.clear}


def summarize(score: Score) -> ScoreSummary:
    """Returns the part of a score that a comparison uses."""
    return ScoreSummary(score.similarity, score.percentile)


def against(row: ComparisonRow, other: ComparisonRow) -> Verdict:
    """Returns the comparison of two variants, by the judge if there is one, else by the CLIP that guides."""
    judged = row.judge is not None and other.judge is not None
    after, before = (row.judge, other.judge) if row.judge and other.judge else (row.guide, other.guide)
    calibrated = after.percentile is not None and before.percentile is not None
    points = (after.percentile or 0.0) - (before.percentile or 0.0) if calibrated else None
    gain, cost = after.similarity - before.similarity, row.seconds - other.seconds
    return Verdict(row.variant, other.variant, points, gain, cost, self_graded=not judged)


def verdicts(rows: Sequence[ComparisonRow]) -> list[Verdict]:
    """Compares variants, of which the first is unguided: each with the unguided one, and `guided` with best-of."""
    unguided, *others = rows
    at_equal_seconds = [against(others[0], row) for row in others[1:] if row.pictures > 1]
    return [against(row, unguided) for row in others] + at_equal_seconds


def averaged(comparisons: Sequence[Sequence[ComparisonRow]]) -> list[ComparisonRow]:
    """Returns the mean of each variant over several comparisons."""
    return [
        ComparisonRow(
            rows[0].variant if len({row.variant for row in rows}) == 1 else "best of several",
            mean(row.pictures for row in rows),
            mean(row.seconds for row in rows),
            _mean([row.guide for row in rows]),
            _mean([row.judge for row in rows if row.judge]) if rows[0].judge else None,
        )
        for rows in zip(*comparisons, strict=True)
    ]


def _mean(scores: Sequence[ScoreSummary]) -> ScoreSummary:
    percentiles = [each.percentile for each in scores if each.percentile is not None]
    return ScoreSummary(
        mean(each.similarity for each in scores), mean(percentiles) if len(percentiles) == len(scores) else None
    )
