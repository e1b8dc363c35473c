"""One-factor edits: a scene and a caption of it with one thing changed, the wording kept, that is false of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any, TypeVar

from clipgen.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.world.grammar import caption
from clipgen.world.parse import parse
from clipgen.world.scene import Mix, Scene, Thing
from clipgen.world.truth import is_true

T = TypeVar("T")
SIDES = frozenset({"left of", "right of", "above", "below"})
TRIES = 20  # captions of a scene, until one says what was changed


@dataclass(frozen=True)
class Edit:
    """One way to make a caption false: the change of a scene, None where it has nothing to change.

    `mix` are the shares under which scenes that have it are common, `floor` is what telling it should reach.
    """

    change: Callable[[Scene, random.Random, Mix], Scene | None]
    mix: Mapping[str, Any]
    floor: float | None


def pair_of(scene: Scene, edit: Edit, mix: Mix, rng: random.Random) -> tuple[str, str] | None:
    """Returns a true caption and a false one of the same wording, None where the scene has nothing to change."""
    for _ in range(TRIES):
        changed, wording = edit.change(scene, rng, mix), rng.random()
        if changed is None:
            return None
        true, false = (caption(each, random.Random(wording)) for each in (scene, changed))
        if true != false and not is_true(parse(false), scene):
            return true, false
    return None


def wrong_captions(scene: Scene, count: int, mix: Mix) -> list[str]:
    """Returns `count` false captions of a scene, each with another thing changed where it has that many."""
    found: dict[str, None] = {}
    rng = random.Random(scene.seed)
    for edit in islice(cycle(EDITS.values()), TRIES * len(EDITS)):
        if len(found) < count and (pair := pair_of(scene, edit, mix, rng)):
            found[pair[1]] = None
    return list(found)


def _thing(scene: Scene, rng: random.Random, mix: Mix) -> Scene:
    shown = {thing.concept for thing in scene.things}
    return _with(scene, 0, concept=rng.choice([name for name in mix.names if name not in shown]))


def _colour(scene: Scene, rng: random.Random, mix: Mix) -> Scene | None:
    dyed = [k for k, thing in enumerate(scene.things) if thing.colour]
    return _with(scene, dyed[0], colour=_other(rng, COLOURS, scene.things[dyed[0]].colour)) if dyed else None


def _count(scene: Scene, rng: random.Random, mix: Mix) -> Scene:
    return _with(scene, 0, count=_other(rng, (1, 2, 3, 4), scene.things[0].count))


def _place(scene: Scene, rng: random.Random, mix: Mix) -> Scene:
    return replace(scene, place=_other(rng, COLOURS if scene.is_plain else PLACES, scene.place))


def _style(scene: Scene, rng: random.Random, mix: Mix) -> Scene | None:
    return None if scene.style == STYLES[0] else replace(scene, style=_other(rng, STYLES[1:], scene.style))


def swapped_things(scene: Scene, rng: random.Random, mix: Mix) -> Scene | None:
    """Exchanges the names of two things that stand left, right, above or below each other."""
    if scene.relation not in SIDES:
        return None
    a, b, *rest = scene.things
    return replace(scene, things=(_named(a, b), _named(b, a), *rest))


def swapped_colours(scene: Scene, rng: random.Random, mix: Mix) -> Scene | None:
    """Exchanges the colours of two things that were dyed differently."""
    if len(scene.things) < 2 or not scene.things[0].colour or not scene.things[1].colour:
        return None
    a, b, *rest = scene.things
    return replace(scene, things=(replace(a, colour=b.colour), replace(b, colour=a.colour), *rest))


def _added(scene: Scene, rng: random.Random, mix: Mix) -> Scene | None:
    first = scene.things[0]
    hue = concepts()[first.concept].hue(first.art)
    return None if first.colour or not hue else _with(scene, 0, colour=_other(rng, COLOURS, hue))


EDITS = {
    "replace thing": Edit(_thing, {}, 0.85),
    "replace colour": Edit(_colour, {"coloured": 1.0, "styled": 0.0}, 0.85),
    "replace count": Edit(_count, {"several": 1.0}, 0.85),
    "replace place": Edit(_place, {}, 0.85),
    "replace style": Edit(_style, {"styled": 1.0}, 0.85),
    "swap things": Edit(swapped_things, {"kinds": (0.0, 1.0, 0.0)}, 0.70),
    "swap colours": Edit(swapped_colours, {"kinds": (0.0, 1.0, 0.0), "coloured": 1.0, "styled": 0.0}, 0.70),
    "add colour": Edit(_added, {"coloured": 0.0, "styled": 0.0}, None),
}


def _with(scene: Scene, index: int, **changes: Any) -> Scene:
    things = list(scene.things)
    things[index] = replace(things[index], **changes)
    return replace(scene, things=tuple(things))


def _named(thing: Thing, other: Thing) -> Thing:
    """Returns a thing's place, number and size with the other's name, drawing and colour."""
    return replace(thing, concept=other.concept, drawing=other.drawing, colour=other.colour)


def _other(rng: random.Random, values: tuple[T, ...], value: T) -> T:
    return rng.choice([each for each in values if each != value])
