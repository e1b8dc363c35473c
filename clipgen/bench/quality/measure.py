"""The whole measurement of a CLIP and its captioner: `clipgen bench quality`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from clipgen.bench.quality.captions import captions
from clipgen.bench.quality.eye import Eye
from clipgen.bench.quality.figures import Figure
from clipgen.bench.quality.one_factor import one_factor
from clipgen.bench.quality.pictures import Drawing, pictures
from clipgen.bench.quality.quadruples import quadruples
from clipgen.bench.quality.retrieval import retrieval
from clipgen.bench.quality.zero_shot import drawings, zero_shot
from clipgen.bench.timing import machine
from clipgen.captioning.clip_captioner import Captioner
from clipgen.clip.score import Scorer
from clipgen.train.tiers import TIERS
from clipgen.world.art import find_package
from clipgen.world.concepts import vocabulary_hash
from clipgen.world.unseen import FIRST_SEEDS, Split

PARTS = {
    "zero-shot naming": zero_shot,
    "retrieval": retrieval,
    "one-factor pairs": one_factor,
    "quadruples of the same words": quadruples,
}
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
    writers: Sequence[Captioner],
    count: int,
    split: Split = "dev",
    folder: Path | None = None,
    drawing: Drawing | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Protocol, list[Figure]]:
    """Measures a CLIP, then each captioner; `folder` holds another vendor's emoji, `say` hears what is on.

    Pictures are drawn and judged where `drawing` says by whom.

    Raises ClipgenError without the drawings, SettingsError for a folder without such emoji.
    """
    find_package("noto")
    eye, mix = Eye(scorer.encoder), replace(TIERS["cpu"].wide, arts=("noto",))  # what the shipped CLIP was trained on
    facts = Protocol(
        scorer.encoder.name, count, split, mix.tier, FIRST_SEEDS[split], eye.side, vocabulary_hash(), machine()
    )
    work: list[tuple[str, Callable[[], list[Figure]]]] = [
        (name, partial(part, eye, count, mix, split)) for name, part in PARTS.items()
    ]
    if folder is not None:
        work.insert(0, ("another vendor's drawings", partial(drawings, eye, folder, mix)))
    work += [(f"captions, {w.kind}", partial(captions, w, count, mix, split, eye.side)) for w in writers]
    if drawing is not None:
        work.append((f"pictures, judged by {drawing.judge.encoder.name}", partial(pictures, drawing, mix, split)))
    figures = []
    for number, (name, part) in enumerate(work, start=1):
        say(f"{number}/{len(work)}  {name}")
        figures += part()
    return facts, figures


def report(facts: Protocol, figures: Sequence[Figure]) -> dict[str, Any]:
    """Returns the measurement with its protocol, JSON-safe."""
    rows = [{**asdict(figure), "reached": figure.reached} for figure in figures]
    return {"protocol": asdict(facts), "note": CLOSED, "figures": rows}
