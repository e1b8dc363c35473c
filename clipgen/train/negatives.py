"""Hard negatives: a scene with one thing changed. Its caption is false of the first scene, its image nearly the same.

An edited caption must be true of images elsewhere in the training data. A word that is never shown, or a held-out
combination, would occur in false captions only, and the CLIP would learn that it is always false.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from clipgen.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.world.grammar import caption
from clipgen.world.holdout import held_out
from clipgen.world.parse import parse
from clipgen.world.scene import Scene, Thing, cells, with_count
from clipgen.world.truth import is_true

T = TypeVar("T")
Edit = tuple[Scene, str]  # an edited scene and a caption of it
TRIES = 6  # edits and wordings, until a caption names what was edited


def hard_pair(
    scene: Scene, rng: random.Random, names: Sequence[str], kinds: Sequence[str] = ()
) -> tuple[str, Edit | None]:
    """Returns a true caption of a scene, and an edited scene with its caption in the same wording.

    The second caption is false of the first scene. `names` are the concepts of the training data, `kinds` the edits to
    choose from, by default all that the scene allows. The edit is None if no caption would name it.
    """
    for _ in range(TRIES):
        wording, edit = rng.random(), edited(scene, rng, names, kinds)
        true = caption(scene, random.Random(wording))
        if edit and not any(held_out(*cell) for cell in cells(edit)):
            false = caption(edit, random.Random(wording))
            if false != true and not is_true(parse(false), scene):
                return true, (edit, false)
    return true, None


def edited(scene: Scene, rng: random.Random, names: Sequence[str], kinds: Sequence[str] = ()) -> Scene | None:
    """Changes a concept, colour, count, place or style of a scene, or swaps two things; returns None if it cannot."""
    kind = rng.choice(kinds or _kinds(scene))
    if kind == "place":
        return replace(scene, place=_other(rng, COLOURS if scene.is_plain else PLACES, scene.place))
    if kind == "style":
        return replace(scene, style=_other(rng, STYLES[1:], scene.style))
    if kind == "swap":
        return _swapped(scene, rng)
    recoloured = [k for k, thing in enumerate(scene.things) if thing.colour]
    index = rng.choice(recoloured) if kind == "colour" else rng.randrange(len(scene.things))
    thing = scene.things[index]
    if kind == "colour":
        return _with(scene, index, replace(thing, colour=_other(rng, COLOURS, thing.colour)))
    if kind == "count":
        return _with(scene, index, with_count(rng, thing, _other(rng, (1, 2, 3, 4), thing.count), len(scene.things)))
    present = {thing.concept for thing in scene.things}
    concept = concepts()[rng.choice([name for name in names if name not in present])]
    drawing, colour = rng.choice(concept.drawings), thing.colour if concept.hue(thing.art) else ""
    return _with(scene, index, replace(thing, concept=concept.name, drawing=drawing, colour=colour))


def _kinds(scene: Scene) -> list[str]:
    """Returns the edits that a scene allows; more frequent ones are repeated."""
    kinds = ["concept", "concept", "place", "count", "count"]
    kinds += ["swap"] * 5 if len(scene.things) > 1 else []
    kinds += ["colour"] * 2 if any(t.colour for t in scene.things) else []
    return kinds + (["style"] if scene.style != "picture book" else [])


def _swapped(scene: Scene, rng: random.Random) -> Scene | None:
    """Swaps two things if a relation distinguishes their places, else their colours or their counts."""
    if len(scene.things) < 2:
        return None
    a, b, *rest = scene.things
    differ_in_colour = a.colour != b.colour and all(concepts()[t.concept].hue(t.art) for t in (a, b))
    if scene.relation not in ("", "next to") and not (differ_in_colour and rng.random() < 0.5):
        a, b = _with_identity(a, b), _with_identity(b, a)
    elif differ_in_colour:
        a, b = replace(a, colour=b.colour), replace(b, colour=a.colour)
    else:
        a, b = (with_count(rng, t, other.count, len(scene.things)) for t, other in ((a, b), (b, a)))
    return replace(scene, things=(a, b, *rest))


def _with_identity(thing: Thing, other: Thing) -> Thing:
    """Returns the other thing at the place, count and size of the first."""
    return replace(thing, concept=other.concept, drawing=other.drawing, colour=other.colour, flip=other.flip)


def _with(scene: Scene, index: int, thing: Thing) -> Scene:
    return replace(scene, things=(*scene.things[:index], thing, *scene.things[index + 1 :]))


def _other(rng: random.Random, values: tuple[T, ...], value: T) -> T:
    return rng.choice([v for v in values if v != value])
