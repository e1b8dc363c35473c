"""Runs all parts of the quality benchmark: `clipgen bench quality`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from clipgen.bench.quality.captions import captions
from clipgen.bench.quality.metrics import Metric
from clipgen.bench.quality.one_factor import one_factor
from clipgen.bench.quality.quadruples import quadruples
from clipgen.bench.quality.retrieval import retrieval
from clipgen.bench.quality.scene_encoder import SceneEncoder
from clipgen.bench.quality.zero_shot import other_drawings, zero_shot
from clipgen.bench.timing import describe_machine
from clipgen.captioning.clip_captioner import Captioner
from clipgen.clip.score import Scorer
from clipgen.train.tiers import TIERS
from clipgen.world.art import find_package
from clipgen.world.concepts import vocabulary_hash
from clipgen.world.unseen import FIRST_SEEDS, Split

CLIP_PARTS = {
    "zero-shot classification": zero_shot,
    "retrieval": retrieval,
    "one-factor pairs": one_factor,
    "quadruples of the same words": quadruples,
}
NOTE = "Closed world: not comparable with the public benchmarks of these names."


@dataclass(frozen=True)
class Protocol:
    """The measuring conditions.

    `count` cases per part, scenes of `split` with seeds from `first_seed` on, concepts up to `tier`, images of `side`
    pixels, the SHA-256 of the `vocabulary`.
    """

    model: str
    count: int
    split: Split
    tier: int
    first_seed: int
    side: int
    vocabulary: str
    machine: str

    def __str__(self) -> str:
        scenes = f"{self.split} scenes from seed {self.first_seed:,}"
        size = f"{self.count:,} cases per part, {self.side} x {self.side} pixels"
        return f"{self.model}: {scenes}, {size}, vocabulary {self.vocabulary[:12]} up to tier {self.tier}"


def measure(
    scorer: Scorer,
    captioners: Sequence[Captioner],
    count: int,
    split: Split = "dev",
    folder: Path | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> tuple[Protocol, list[Metric]]:
    """Measures a CLIP and each captioner.

    `folder` holds emoji of another vendor, which are classified too. `on_progress` receives a line before each part.

    Raises ClipgenError if the drawings are not installed, SettingsError if `folder` holds no such emoji.
    """
    find_package("noto")
    encoder = SceneEncoder(scorer.encoder)
    mix = replace(TIERS["cpu"].wide, arts=("noto",))  # the drawings that the bundled CLIP was trained on
    protocol = Protocol(
        scorer.encoder.name,
        count,
        split,
        mix.tier,
        FIRST_SEEDS[split],
        encoder.side,
        vocabulary_hash(),
        describe_machine(),
    )
    parts: list[tuple[str, Callable[[], list[Metric]]]] = [
        (name, partial(part, encoder, count, mix, split)) for name, part in CLIP_PARTS.items()
    ]
    if folder is not None:
        parts.insert(0, ("drawings of another vendor", partial(other_drawings, encoder, folder, mix)))
    parts += [(f"captions, {c.kind}", partial(captions, c, count, mix, split, encoder.side)) for c in captioners]
    metrics = []
    for number, (name, part) in enumerate(parts, start=1):
        on_progress(f"{number}/{len(parts)}  {name}")
        metrics += part()
    return protocol, metrics


def report(protocol: Protocol, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Returns the metrics with the measuring conditions as JSON-serialisable values."""
    figures = [{**asdict(metric), "reached": metric.reached} for metric in metrics]
    return {"protocol": asdict(protocol), "note": NOTE, "figures": figures}
