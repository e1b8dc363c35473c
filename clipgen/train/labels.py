"""Exact labels of a rendered scene for auxiliary heads: what it shows and which thing is left, above or in front."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from clipgen.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.world.parse import parse
from clipgen.world.scene import ABOVE, LEFT, Scene, Thing

HEAD_SPEED = 4.0  # the heads start from random weights in each run and learn this much faster than the encoders
THING_KINDS, SCENE_KINDS = ("thing", "colour", "count"), ("place", "style")
ROLES = ("left", "right", "above", "below", "in front", "behind")
OPPOSITES = {
    LEFT: ("left", "right"), ABOVE: ("above", "below"),
    "left of": ("left", "right"), "right of": ("right", "left"),
    "above": ("above", "below"), "below": ("below", "above"), "on top of": ("above", "below"),
    "in front of": ("in front", "behind"), "behind": ("behind", "in front"),
}  # fmt: skip
RoleLabel = tuple[int, int, int]  # index of the role, label of the thing that has it, label of the opposite thing


@cache
def label_index() -> dict[tuple[str, str], int]:
    """Returns the index of each (kind, name) in the label vector; kinds that every caption names come first."""
    things = [("thing", name) for name in concepts()] + [("colour", name) for name in COLOURS]
    things += [("count", str(count)) for count in (1, 2, 3, 4)]
    surroundings = [("place", name) for name in (*PLACES, *COLOURS)] + [("style", name) for name in STYLES]
    return {label: index for index, label in enumerate(things + surroundings)}


@cache
def caption_label_count() -> int:
    """Returns how many labels, from the first on, every caption names."""
    return sum(kind in THING_KINDS for kind, _ in label_index())


def scene_labels(scene: Scene) -> Tensor:
    """Returns the label vector [L] of zeros and ones of a scene."""
    labels = torch.zeros(len(label_index()))
    for thing in scene.things:
        labels[_thing_labels(thing)] = 1.0
    labels[[label_index()["place", scene.place], label_index()["style", scene.style]]] = 1.0
    return labels


def scene_roles(scene: Scene) -> list[RoleLabel]:
    """Returns which of two things of a scene is left, right, above, below, in front or behind."""
    relations = [(kind, a, b) for kind, a, b in scene.roles()]
    if scene.relation in OPPOSITES:
        relations.append((scene.relation, scene.things[0].concept, scene.things[1].concept))
    return [role for kind, a, b in relations for role in _both_roles(kind, a, b)]


def caption_roles(caption: str) -> list[RoleLabel]:
    """Returns which of two things a caption says to be left, right, above, below, in front or behind."""
    relation = parse(caption).relation
    return _both_roles(relation[1], relation[0], relation[2]) if relation and relation[1] in OPPOSITES else []


def _both_roles(kind: str, a: str, b: str) -> list[RoleLabel]:
    role, opposite = (ROLES.index(role) for role in OPPOSITES[kind])
    first, second = label_index()["thing", a], label_index()["thing", b]
    return [(role, first, second), (opposite, second, first)]


def _thing_labels(thing: Thing) -> list[int]:
    labels = [("thing", thing.concept), ("count", str(thing.count))] + [("colour", thing.colour)] * bool(thing.colour)
    return [label_index()[label] for label in labels]
