"""CLIP's opinion of a picture in words: a percentile among captions, never a bare cosine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipgen.clip.diversity import Diversity
    from clipgen.clip.prompt_check import PhraseCheck
    from clipgen.clip.score import Score

WORDS = ((99.0, "strong"), (95.0, "good"), (80.0, "fair"), (0.0, "weak"))


def percent(percentile: float) -> str:
    """Returns `97 %`, with one decimal from 99 up; rounded down, so that nothing reads better than it is."""
    return f"{math.floor(percentile * 10) / 10:.1f} %" if percentile >= 99 else f"{math.floor(percentile)} %"


def word(percentile: float) -> str:
    """Returns weak, fair, good or strong."""
    return next(name for least, name in WORDS if percentile >= least)


def score_line(clip: Score | None, *, verbose: bool) -> str:
    """Returns `matches better than 97 % of 1,000 other captions, good`, "" without a score.

    `verbose` adds similarity, CLIP score and model.
    """
    if clip is None:
        return ""
    if clip.percentile is None:
        line = f"CLIP similarity {clip.similarity:.3f}, uncalibrated"
    else:
        others = f"{percent(clip.percentile)} of {clip.captions:,} other captions"
        line = f"matches better than {others}, {word(clip.percentile)}"
    graded = ", self-graded" if clip.self_graded else ""
    detail = f" (similarity {clip.similarity:.3f}, CLIP score {clip.score:.2f}, {clip.model})" if verbose else ""
    return line + graded + detail


def likeness_line(likeness: float | None) -> str:
    """Returns `CLIP cosine 0.93 to the picture it varies`, "" where it varies none."""
    return "" if likeness is None else f"CLIP cosine {likeness:.2f} to the picture it varies"


def chips(checks: Sequence[PhraseCheck]) -> str:
    """Returns `fox ✓ 97 %  red ✗ 31 %`, a chip a question: the thing, its colour or its number."""
    return "  ".join(f"{each.subject} {'✓' if each.holds else '✗'} {100 * each.probability:.0f} %" for each in checks)


def diversity_line(found: Diversity) -> str:
    """Returns `as diverse as 2.4 of 4 different pictures (Vendi), mean distance 0.31`."""
    return f"as diverse as {found.vendi:.1f} of {found.pictures} different pictures, mean distance {found.distance:.2f}"
