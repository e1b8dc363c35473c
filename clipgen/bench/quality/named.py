"""named@1: does an image of `a X` show X? Two CLIPs choose among the names of all concepts that the model claims.

An image counts if the judge, which never guides, and the model's own CLIP both choose its name. The same on true
renders that went through the autoencoder is the ceiling: a failure there is not the denoiser's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from clipgen.bench.quality.drawing import PictureTest, to_image_or_black
from clipgen.bench.quality.metrics import Metric, share
from clipgen.bench.quality.zero_shot import TEMPLATES
from clipgen.clip.classify import label_features
from clipgen.clip.encoder import ClipEncoder
from clipgen.world.grammar import name_phrase

PART = "named@1"
FLOOR = 0.75
BROKEN = "(broken image)"


@dataclass(frozen=True)
class NamedConcept:
    """One concept, with the names that the judge and CLIP chose for each of its images, by seed."""

    name: str
    judge: tuple[str, ...]
    clip: tuple[str, ...]

    @property
    def right(self) -> list[bool]:
        """For each seed whether both chose the name of the concept."""
        return [judge == clip == self.name for judge, clip in zip(self.judge, self.clip, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields and the number of seeds that are right, for JSON."""
        return {"name": self.name, "right": sum(self.right), "judge": list(self.judge), "clip": list(self.clip)}


class Namer:
    """Chooses for an image one of the names, with the judge and with CLIP."""

    def __init__(self, encoders: Sequence[ClipEncoder], names: Sequence[str]) -> None:
        self.encoders, self.names = encoders, names
        phrases = [name_phrase(name) for name in names]
        self.features = [label_features(encoder, phrases, TEMPLATES) for encoder in encoders]

    @torch.no_grad()
    def __call__(self, pixels: Tensor | None) -> tuple[str, ...]:
        """Returns the name that each encoder chooses for an image [3, H, W] in [0, 1]."""
        if pixels is None:
            return (BROKEN,) * len(self.encoders)
        return tuple(
            self.names[int((features @ encoder.image_features(pixels[None])[0]).argmax())]
            for encoder, features in zip(self.encoders, self.features, strict=True)
        )


def draw_named(test: PictureTest, concepts: Sequence[str], seeds: int) -> tuple[list[NamedConcept], list[Image]]:
    """Draws `a X` with seeds 1 to `seeds` for each concept; returns what was chosen, and each image of seed 1."""
    namer = Namer(test.encoders, test.names)
    prompts = [(name_phrase(name), seed) for name in concepts for seed in range(1, seeds + 1)]
    chosen: list[tuple[str, ...]] = []
    first_images: list[Image] = []
    for (_, seed), pixels in zip(prompts, test.draw(PART, prompts), strict=True):
        chosen.append(namer(pixels))
        if seed == 1:
            first_images.append(to_image_or_black(pixels))
    return by_concept(concepts, chosen, seeds), first_images


def by_concept(concepts: Sequence[str], chosen: Sequence[tuple[str, ...]], seeds: int) -> list[NamedConcept]:
    """Returns one NamedConcept per concept from the (judge, CLIP) choices, `seeds` in a row per concept."""
    rows = [list(zip(*chosen[k * seeds : (k + 1) * seeds], strict=True)) for k in range(len(concepts))]
    return [NamedConcept(name, judge, clip) for name, (judge, clip) in zip(concepts, rows, strict=True)]


def named_metrics(named: Sequence[NamedConcept], ceiling: Sequence[NamedConcept] | None = None) -> list[Metric]:
    """Returns named@1 by both CLIPs, by the judge and by CLIP alone, and the share of concepts right at every seed."""
    names = len(named)

    def hits(rows: Iterable[NamedConcept]) -> dict[str, list[bool]]:
        rows = list(rows)
        return {
            "judge and CLIP": [right for row in rows for right in row.right],
            "judge": [choice == row.name for row in rows for choice in row.judge],
            "CLIP": [choice == row.name for row in rows for choice in row.clip],
        }

    most = {} if ceiling is None else {key: sum(values) / len(values) for key, values in hits(ceiling).items()}
    metrics = [
        share(PART, key, values, floor=FLOOR if key == "judge and CLIP" else None, ceiling=most.get(key))
        for key, values in hits(named).items()
    ]
    every = [all(row.right) for row in named]
    return [*metrics, share(PART, f"concepts right at all seeds, of {names}", every)]


def by_seeds_right(named: Sequence[NamedConcept]) -> dict[int, list[str]]:
    """Returns the names of the concepts by the number of their seeds that are right, the fewest first."""
    most = max(len(row.judge) for row in named)
    groups = {count: [row.name for row in named if sum(row.right) == count] for count in range(most + 1)}
    return {count: names for count, names in groups.items() if names}
