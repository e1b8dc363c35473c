"""An auxiliary head: each image patch must name the thing that it shows, its colour and its count.

Token labelling (Jiang et al. 2021, arXiv 2104.10858). A caption names a small thing once per image; this loss names it
at each patch where it is visible. The head is dropped after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgen.train.labels import HEAD_SPEED, label_index
from clipgen.world.concepts import COLOURS, concepts
from clipgen.world.scene import Scene, Thing

REACH = 0.42  # of a thing's height to each side of its centre; patches farther out may show background
HUES, LARGEST_COUNT = ("", *COLOURS), 4


class PatchLabels(nn.Module):
    """A linear head from patch states to concept, colour and count."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = [len(concepts()), len(HUES), LARGEST_COUNT]
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, sum(self.sizes))

    def forward(self, states: Tensor, scenes: Sequence[Scene]) -> tuple[Tensor, float]:
        """Returns the cross entropy of patch states [B, N, D], and the share of patches whose concept is right.

        The last side * side states are the patches, row by row; a class token may come before them.
        """
        side = isqrt(states.shape[1])
        labels = [
            (row, patch, *_label(scene.things[thing]))
            for row, scene in enumerate(scenes)
            for patch, thing in _visible_things(scene, side).items()
        ]
        rows, patches, *targets = torch.tensor(labels, device=states.device).T
        logits = HEAD_SPEED * self.head(self.norm(states[:, -(side**2) :][rows, patches])).float()
        parts = logits.split(self.sizes, dim=1)
        right = (parts[0].argmax(dim=1) == targets[0]).float().mean().item()
        return torch.stack([F.cross_entropy(*pair) for pair in zip(parts, targets, strict=True)]).sum(), right


def _visible_things(scene: Scene, side: int) -> dict[int, int]:
    """Returns for each patch of side x side that shows a thing the index of that thing."""
    visible: dict[int, int] = {}
    boxes = [(*box, k) for k, thing in enumerate(scene.things) for box in thing.boxes]
    for x, foot, height, k in sorted(boxes, key=lambda box: box[1]):  # front things last, as the renderer draws them
        columns, rows = (_covered(centre, REACH * height, side) for centre in (x, foot - height / 2))
        visible |= {row * side + column: k for row in rows for column in columns}
    return visible


def _covered(centre: float, reach: float, side: int) -> range:
    """Returns the patches along one axis whose centres are within reach, at least the one at the centre."""
    first, last = (round((centre + sign * reach) * side) for sign in (-1, 1))
    nearest = min(max(int(centre * side), 0), side - 1)
    return range(max(min(first, nearest), 0), min(max(last, nearest + 1), side))


def _label(thing: Thing) -> tuple[int, int, int]:
    return label_index()["thing", thing.concept], HUES.index(thing.colour), thing.count - 1
