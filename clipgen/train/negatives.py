"""Hard negatives: a caption of a scene with one thing changed, in the wording of the true one."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TypeVar

from clipgen.train.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.train.world.grammar import caption
from clipgen.train.world.scene import Scene, Thing

T = TypeVar("T")
TRIES = 4  # edits, until one is of something that the caption says


def caption_pair(scene: Scene, rng: random.Random) -> tuple[str, str | None]:
    """Returns a true caption and one of the same wording that is false, or None where the change went unsaid."""
    wording = rng.random()
    true = caption(scene, random.Random(wording))
    tries = (caption(edited(scene, rng), random.Random(wording)) for _ in range(TRIES))
    return true, next((false for false in tries if false != true), None)


def edited(scene: Scene, rng: random.Random) -> Scene:
    """Changes one thing of a scene: a concept, colour, count, place, style, or swaps two things."""
    kinds = ["concept", "concept", "place", "count", "count"]
    kinds += ["swap"] * 5 if len(scene.things) > 1 else []
    kinds += ["colour"] * 2 if any(t.colour for t in scene.things) else []
    kinds += ["style"] if scene.style != "picture book" else []
    kind = rng.choice(kinds)
    if kind == "place":
        return replace(scene, place=_other(rng, COLOURS if scene.is_plain else PLACES, scene.place))
    if kind == "style":
        return replace(scene, style=_other(rng, STYLES[1:], scene.style))
    if kind == "swap":
        return _swapped(scene, rng)
    index = rng.randrange(len(scene.things))
    if kind == "colour":
        index = next(k for k, t in enumerate(scene.things) if t.colour)
    things = list(scene.things)
    things[index] = _changed(things[index], kind, rng)
    return replace(scene, things=tuple(things))


def _changed(thing: Thing, kind: str, rng: random.Random) -> Thing:
    if kind == "colour":
        return replace(thing, colour=_other(rng, COLOURS, thing.colour))
    if kind == "count":
        return replace(thing, count=_other(rng, (1, 2, 3, 4), thing.count))
    return replace(thing, concept=_other(rng, tuple(concepts()), thing.concept))


def _swapped(scene: Scene, rng: random.Random) -> Scene:
    """Swaps two things' names where a relation tells them apart, else the colours or counts they carry."""
    a, b, *rest = scene.things
    if scene.relation and scene.relation != "next to" and (a.colour == b.colour or rng.random() < 0.5):
        a, b = replace(a, concept=b.concept), replace(b, concept=a.concept)
    else:
        a, b = replace(a, colour=b.colour, count=b.count), replace(b, colour=a.colour, count=a.count)
    return replace(scene, things=(a, b, *rest))


def _other(rng: random.Random, values: tuple[T, ...], value: T) -> T:
    return rng.choice([v for v in values if v != value])
