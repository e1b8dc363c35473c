"""What is true of a scene, as yes and no: which things, colours, counts, places and styles it shows, and where."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from clipgen.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.world.parse import parse
from clipgen.world.scene import ABOVE, LEFT, Scene, Thing

HASTE = 4.0  # so much faster than encoders learns what reads labels off them, which begins anew with every run
OF_THINGS, OF_SURROUNDINGS = ("thing", "colour", "count"), ("place", "style")
ROLES = ("left", "right", "above", "below", "in front", "behind")
OPPOSITES = {
    LEFT: ("left", "right"), ABOVE: ("above", "below"),
    "left of": ("left", "right"), "right of": ("right", "left"),
    "above": ("above", "below"), "below": ("below", "above"), "on top of": ("above", "below"),
    "in front of": ("in front", "behind"), "behind": ("behind", "in front"),
}  # fmt: skip
Side = tuple[int, int, int]  # of a role, of the thing that has it, and of the one that has the opposite


@cache
def label_index() -> dict[tuple[str, str], int]:
    """Returns the place of each label in the vector; those of things, which every caption tells, come first."""
    things = [("thing", name) for name in concepts()] + [("colour", name) for name in COLOURS]
    things += [("count", str(count)) for count in (1, 2, 3, 4)]
    around = [("place", name) for name in (*PLACES, *COLOURS)] + [("style", name) for name in STYLES]
    return {label: place for place, label in enumerate(things + around)}


@cache
def labels_told() -> int:
    """Returns how many labels, from the first on, every caption tells."""
    return sum(kind in OF_THINGS for kind, _ in label_index())


def labels_of(scene: Scene) -> Tensor:
    """Returns the vector [L] of zeros and ones of a scene."""
    vector = torch.zeros(len(label_index()))
    for thing in scene.things:
        vector[_places(thing)] = 1.0
    vector[[label_index()["place", scene.place], label_index()["style", scene.style]]] = 1.0
    return vector


def sides_of(scene: Scene) -> list[Side]:
    """Returns which of two things of a scene is left, which right ..., each role by its place in ROLES."""
    found = [(kind, a, b) for kind, a, b in scene.roles()]
    if scene.relation in OPPOSITES:
        found.append((scene.relation, scene.things[0].concept, scene.things[1].concept))
    return [side for kind, a, b in found for side in _both(kind, a, b)]


def sides_told(caption: str) -> list[Side]:
    """Returns which of two things a caption tells to be left, which right ..."""
    relation = parse(caption).relation
    return _both(relation[1], relation[0], relation[2]) if relation and relation[1] in OPPOSITES else []


def _both(kind: str, a: str, b: str) -> list[Side]:
    one, other = (ROLES.index(role) for role in OPPOSITES[kind])
    first, second = label_index()["thing", a], label_index()["thing", b]
    return [(one, first, second), (other, second, first)]


def _places(thing: Thing) -> list[int]:
    labels = [("thing", thing.concept), ("count", str(thing.count))] + [("colour", thing.colour)] * bool(thing.colour)
    return [label_index()[label] for label in labels]
