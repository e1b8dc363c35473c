"""The finished pictures of a drawing command: their summary, and the checks of --min-score and --require."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipgen.cli.output import Report
from clipgen.errors import BelowMinScore
from clipgen.report.score_text import percent
from clipgen.settings.settings import Note

ENVELOPE_BYTES = 48 * 1024  # of the 64 KiB that a line may have


@dataclass(frozen=True)
class FinishedImage:
    """A finished picture without its pixels, which would fill the memory in a long batch.

    `missed` are the texts of --require that CLIP does not see in it.
    """

    seed: int
    path: Path | None
    percentile: float | None
    twin: bool = False
    missed: tuple[str, ...] = ()


def summary(finished: Sequence[FinishedImage]) -> dict[str, Any]:
    """Returns the number of pictures, and path and seed of as many as fit into the envelope."""
    images: list[dict[str, Any]] = []
    size = 0
    for image in finished:
        images.append({"path": str(image.path) if image.path else None, "seed": image.seed})
        size += len(json.dumps(images[-1]))
        if size > ENVELOPE_BYTES:
            break
    return {"count": len(finished), "images": images}


def check_scores(finished: Sequence[FinishedImage], min_score: float | None, report: Report) -> None:
    """Raises BelowMinScore if the percentile of a picture, twins excepted, is below `min_score`."""
    if min_score is None:
        return
    finished = [image for image in finished if not image.twin]
    scores = [image.percentile for image in finished if image.percentile is not None]
    if len(scores) < len(finished):
        report.warn(Note("not-calibrated", "min_score", "--min-score needs a calibrated CLIP score; not checked."))
    if low := [score for score in scores if score < min_score]:
        line = f"{len(low)} of {len(finished)} pictures score below {min_score:g}%, the lowest {percent(min(low))}."
        raise BelowMinScore(line, field="min_score")


def check_required(finished: Sequence[FinishedImage]) -> None:
    """Raises BelowMinScore if a picture, twins excepted, lacks a text of --require."""
    failed = [image for image in finished if image.missed and not image.twin]
    if failed:
        parts = ", ".join(dict.fromkeys(part for image in failed for part in image.missed))
        line = f"{len(failed)} of {len(finished)} pictures do not show what --require asks for: {parts}."
        raise BelowMinScore(line, field="require")
