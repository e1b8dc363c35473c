"""What each patch of a picture shows: which thing, in which colour and how many of it.

A caption says once of a picture what is in it; that each patch on a small thing must name it says it where it is to be
seen (token labelling, Jiang et al. 2021, arXiv 2104.10858). What tells it is left behind when training ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgen.train.labels import HASTE, label_index
from clipgen.world.concepts import COLOURS, concepts
from clipgen.world.scene import Scene, Thing

SPREAD = 0.42  # of a thing's height to each side of its middle: what lies farther out may be ground
HUES, MOST = ("", *COLOURS), 4


class PatchLabels(nn.Module):
    """Reads from each patch state what stands there."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.sizes = [len(concepts()), len(HUES), MOST]
        self.norm, self.told = nn.LayerNorm(states), nn.Linear(states, sum(self.sizes))

    def forward(self, states: Tensor, scenes: Sequence[Scene]) -> tuple[Tensor, float]:
        """Returns how badly states [B, N, S] of patches tell the things on them, and how often they name them.

        Other states may stand before those of the patches, which are a square of them.
        """
        side = isqrt(states.shape[1])
        found = [
            (row, patch, *_label(scene.things[thing]))
            for row, scene in enumerate(scenes)
            for patch, thing in _owners(scene, side).items()
        ]
        rows, patches, *wanted = torch.tensor(found, device=states.device).T
        logits = HASTE * self.told(self.norm(states[:, -(side**2) :][rows, patches])).float()
        told = logits.split(self.sizes, dim=1)
        right = (told[0].argmax(dim=1) == wanted[0]).float().mean().item()
        return torch.stack([F.cross_entropy(*pair) for pair in zip(told, wanted, strict=True)]).sum(), right


def _owners(scene: Scene, side: int) -> dict[int, int]:
    """Returns for each patch of side x side, in rows, that shows a thing which one of the scene's it is."""
    found: dict[int, int] = {}
    boxes = [(*box, k) for k, thing in enumerate(scene.things) for box in thing.boxes]
    for x, foot, height, k in sorted(boxes, key=lambda box: box[1]):  # the foremost last, as they are drawn
        across, down = (_covered(middle, SPREAD * height, side) for middle in (x, foot - height / 2))
        found |= {row * side + column: k for row in down for column in across}
    return found


def _covered(middle: float, reach: float, side: int) -> range:
    """Returns the patches of a row whose middles are within reach, at least the one at the middle."""
    first, last = (round((middle + way * reach) * side) for way in (-1, 1))
    at = min(max(int(middle * side), 0), side - 1)
    return range(max(min(first, at), 0), min(max(last, at + 1), side))


def _label(thing: Thing) -> tuple[int, int, int]:
    return label_index()["thing", thing.concept], HUES.index(thing.colour), thing.count - 1
