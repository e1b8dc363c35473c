"""Everything that the picture benchmark measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from clipgen.bench.gain import GainRow
from clipgen.bench.quality.metrics import Metric
from clipgen.bench.quality.named import NamedConcept
from clipgen.bench.quality.scene_eval import SceneResult


@dataclass
class PictureResults:
    """Everything that the benchmark measured; the report is written from it after each part.

    Attributes:
        protocol: The measuring conditions.
        metrics: All rates.
        named: What was chosen for each concept.
        scenes: The verdict on each prompt of SceneEval.
        guidance: Gain of each guidance variant at equal processor time.
        sheets: (title, file name) of every sheet of images.
        notes: What was left out, and why.
    """

    protocol: dict[str, Any]
    metrics: list[Metric] = field(default_factory=list)
    named: list[NamedConcept] = field(default_factory=list)
    scenes: list[SceneResult] = field(default_factory=list)
    guidance: list[GainRow] = field(default_factory=list)
    sheets: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        """The notes, and the rates whose floor even true renders miss: there the judge or CLIP is too weak to tell."""
        missed = [f"{each.part}, {each.name}" for each in self.metrics if not each.is_reachable]
        return [
            *self.notes,
            *([f"Not measurable, the ceiling is below the floor: {'; '.join(missed)}."] * bool(missed)),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns all results as JSON values."""
        return {
            "protocol": self.protocol,
            "figures": [{**asdict(metric), "reached": metric.reached} for metric in self.metrics],
            "named": [row.to_dict() for row in self.named],
            "scenes": [row.to_dict() for row in self.scenes],
            "guidance": [asdict(row) for row in self.guidance],
            "sheets": [list(sheet) for sheet in self.sheets],
            "notes": self.remarks,
        }
