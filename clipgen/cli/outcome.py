"""What a drawing command has made, for the envelope and for --min-score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipgen.cli.output import Report
from clipgen.errors import BelowMinScore
from clipgen.settings.settings import Note

ENVELOPE_BYTES = 48 * 1024  # of the 64 KiB that a line may have


@dataclass(frozen=True)
class FinishedImage:
    """What is remembered of a picture that is done with: its pixels would fill the memory in a long batch.

    `missed` is what --require asked for and CLIP does not see.
    """

    seed: int
    path: Path | None
    percentile: float | None
    twin: bool = False
    missed: tuple[str, ...] = ()


def summary(written: Sequence[FinishedImage]) -> dict[str, Any]:
    """Returns what the envelope tells of the pictures, as many as fit into one line."""
    images: list[dict[str, Any]] = []
    size = 0
    for picture in written:
        images.append({"path": str(picture.path) if picture.path else None, "seed": picture.seed})
        size += len(json.dumps(images[-1]))
        if size > ENVELOPE_BYTES:
            break
    return {"count": len(written), "images": images}


def check_scores(written: Sequence[FinishedImage], least: float | None, report: Report) -> None:
    """Raises BelowMinScore if a picture, twins aside, lies under the percentile `least`; the files are kept."""
    if least is None:
        return
    written = [picture for picture in written if not picture.twin]
    scores = [picture.percentile for picture in written if picture.percentile is not None]
    if len(scores) < len(written):
        message = "Without a calibrated score nothing can be held against --min-score."
        report.warn(Note("not-calibrated", "min_score", message))
    if low := [score for score in scores if score < least]:
        line = f"{len(low)} of {len(written)} pictures score under {least:g} %, the lowest {min(low):.0f} %."
        raise BelowMinScore(line, field="min_score")


def check_required(written: Sequence[FinishedImage]) -> None:
    """Raises BelowMinScore if CLIP misses in a picture, twins aside, what --require asked for; the files are kept."""
    failed = [picture for picture in written if picture.missed and not picture.twin]
    if failed:
        parts = ", ".join(dict.fromkeys(part for picture in failed for part in picture.missed))
        line = f"{len(failed)} of {len(written)} pictures do not show what is required: {parts}."
        raise BelowMinScore(line, field="require")
