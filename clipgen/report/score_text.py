"""CLIP scores as text: a percentile among captions instead of a bare cosine similarity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipgen.clip.diversity import Diversity
    from clipgen.clip.prompt_check import PhraseCheck
    from clipgen.clip.score import Score

RATINGS = ((99.0, "strong"), (95.0, "good"), (80.0, "fair"), (0.0, "weak"))  # minimum percentile, rating


def percent(percentile: float) -> str:
    """Returns `97%`, with one decimal from 99 up; rounded down, so that no score looks better than it is."""
    return f"{math.floor(percentile * 10) / 10:.1f}%" if percentile >= 99 else f"{math.floor(percentile)}%"


def rating(percentile: float) -> str:
    """Returns weak, fair, good or strong."""
    return next(name for minimum, name in RATINGS if percentile >= minimum)


def score_line(clip: Score | None, *, verbose: bool) -> str:
    """Returns `matches better than 97% of 1,000 other captions, good`, "" without a score.

    `verbose` adds the similarity, the CLIP score and the CLIP model.
    """
    if clip is None:
        return ""
    if clip.percentile is None:
        line = f"CLIP similarity {clip.similarity:.3f}, uncalibrated"
    else:
        others = f"{percent(clip.percentile)} of {clip.captions:,} other captions"
        line = f"matches better than {others}, {rating(clip.percentile)}"
    graded = ", self-graded" if clip.self_graded else ""
    detail = f" (similarity {clip.similarity:.3f}, CLIP score {clip.score:.2f}, {clip.model})" if verbose else ""
    return line + graded + detail


def likeness_line(likeness: float | None) -> str:
    """Returns `CLIP similarity 0.93 to the original picture`, "" if the picture is no variation."""
    return "" if likeness is None else f"CLIP similarity {likeness:.2f} to the original picture"


def check_line(checks: Sequence[PhraseCheck]) -> str:
    """Returns `fox ✓ 97%  red ✗ 31%`: each checked part of the prompt with its probability."""
    return "  ".join(f"{each.subject} {'✓' if each.holds else '✗'} {100 * each.probability:.0f}%" for each in checks)


def diversity_line(diversity: Diversity) -> str:
    """Returns `as diverse as 2.4 of 4 different pictures, mean distance 0.31` (Vendi score, cosine distance)."""
    count = f"{diversity.vendi:.1f} of {diversity.pictures}"
    return f"as diverse as {count} different pictures, mean distance {diversity.distance:.2f}"
