"""The whole measurement of a CLIP and its captioner: `clipgen bench quality`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipgen.bench.quality.captions import captions
from clipgen.bench.quality.eye import Eye
from clipgen.bench.quality.figures import Figure
from clipgen.bench.quality.one_factor import one_factor
from clipgen.bench.quality.quadruples import quadruples
from clipgen.bench.quality.retrieval import retrieval
from clipgen.bench.quality.zero_shot import drawings, zero_shot
from clipgen.bench.timing import machine
from clipgen.clip.score import Scorer
from clipgen.clip.writer import Writer
from clipgen.train.tiers import TIERS
from clipgen.train.world.concepts import vocabulary_hash
from clipgen.train.world.drawings import find_font
from clipgen.train.world.unseen import FIRST_SEEDS, Split

PARTS = (zero_shot, retrieval, one_factor, quadruples)
CLOSED = "Closed world: not comparable with the public benchmarks of these names."


@dataclass(frozen=True)
class Protocol:
    """What is measured, on what: `count` cases a part, scenes of `split` from `first_seed` on, `tier` of the names."""

    model: str
    count: int
    split: Split
    tier: int
    first_seed: int
    side: int
    vocabulary: str
    machine: str

    def __str__(self) -> str:
        seeds = f"{self.split} scenes from seed {self.first_seed:,}"
        pictures = f"{self.count:,} cases a part, {self.side} x {self.side} pixels"
        return f"{self.model}: {seeds}, {pictures}, vocabulary {self.vocabulary[:12]} to tier {self.tier}"


def measure(
    scorer: Scorer,
    writers: Sequence[Writer],
    count: int,
    split: Split = "dev",
    folder: Path | None = None,
    told: Callable[[Figure], None] = lambda figure: None,
) -> tuple[Protocol, list[Figure]]:
    """Measures a CLIP, then each captioner; `folder` holds another vendor's emoji, `told` hears of every figure.

    Raises ClipgenError without the font of the drawings, SettingsError for a folder without such emoji.
    """
    find_font()
    eye, mix = Eye(scorer.encoder), TIERS["cpu"].wide
    facts = Protocol(
        scorer.encoder.name, count, split, mix.tier, FIRST_SEEDS[split], eye.side, vocabulary_hash(), machine()
    )
    figures = []

    def parts() -> Iterator[list[Figure]]:
        for part in PARTS:
            yield part(eye, count, mix, split)
        if folder is not None:
            yield drawings(eye, folder, mix)
        for writer in writers:
            yield captions(writer, count, mix, split, eye.side)

    for found in parts():
        for figure in found:
            figures.append(figure)
            told(figure)
    return facts, figures


def report(facts: Protocol, figures: Sequence[Figure]) -> dict[str, Any]:
    """Returns the measurement with its protocol, JSON-safe."""
    rows = [{**asdict(figure), "reached": figure.reached} for figure in figures]
    return {"protocol": asdict(facts), "note": CLOSED, "figures": rows}
