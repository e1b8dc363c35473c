"""What is true of a scene, as yes and no: which things, colours, counts, places and styles it shows, and where."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from clipgen.train.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.train.world.parse import parse
from clipgen.train.world.scene import ABOVE, BESIDE, Scene, Thing

OF_THINGS, OF_SURROUNDINGS = ("thing", "colour", "count"), ("place", "style")
ROLES = ("left", "right", "above", "below", "in front", "behind")
AXES = {
    BESIDE: ("left", "right"), ABOVE: ("above", "below"),
    "left of": ("left", "right"), "right of": ("right", "left"),
    "above": ("above", "below"), "below": ("below", "above"), "on top of": ("above", "below"),
    "in front of": ("in front", "behind"), "behind": ("behind", "in front"),
}  # fmt: skip


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


def roles_of(scene: Scene) -> Tensor:
    """Returns the labels [R, L'] of what stands left of another thing, right of one ...; only labels of things."""
    labels = torch.zeros(len(ROLES), labels_told())
    shown = {thing.concept: thing for thing in scene.things}
    pairs = [(AXES[kind], (a, b)) for kind, a, b in scene.roles()]
    if scene.relation in AXES:
        pairs.append((AXES[scene.relation], (scene.things[0].concept, scene.things[1].concept)))
    for roles, names in pairs:
        for role, name in zip(roles, names, strict=True):
            labels[ROLES.index(role), _places(shown[name])] = 1.0
    return labels


def roles_told(caption: str) -> Tensor:
    """Returns which roles [R] a caption tells of, as bool: both of its relation."""
    relation = parse(caption).relation
    told = AXES.get(relation[1], ()) if relation else ()
    return torch.tensor([role in told for role in ROLES])


def _places(thing: Thing) -> list[int]:
    labels = [("thing", thing.concept), ("count", str(thing.count))] + [("colour", thing.colour)] * bool(thing.colour)
    return [label_index()[label] for label in labels]
