"""What is true of a scene, as one vector of yes and no: which things, colours, counts, places and styles it shows."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from clipgen.train.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.train.world.scene import Scene

OF_THINGS, OF_SURROUNDINGS = ("thing", "colour", "count"), ("place", "style")


@cache
def label_index() -> dict[tuple[str, str], int]:
    """Returns the place of each label in the vector; those of things, which every caption tells, come first."""
    things = [("thing", name) for name in concepts()] + [("colour", name) for name in COLOURS]
    things += [("count", str(count)) for count in (1, 2, 3, 4)]
    around = [("place", name) for name in (*PLACES, *COLOURS)] + [("style", name) for name in STYLES]
    return {label: place for place, label in enumerate(things + around)}


def labels_told() -> int:
    """Returns how many labels, from the first on, every caption tells."""
    return sum(kind in OF_THINGS for kind, _ in label_index())


def labels_of(scene: Scene) -> Tensor:
    """Returns the vector [L] of zeros and ones of a scene."""
    true = [("place", scene.place), ("style", scene.style)]
    for thing in scene.things:
        true += [("thing", thing.concept), ("count", str(thing.count))]
        true += [("colour", thing.colour)] if thing.colour else []
    vector = torch.zeros(len(label_index()))
    vector[[label_index()[label] for label in true]] = 1.0
    return vector
