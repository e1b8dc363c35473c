"""One-factor edits: changes one factor of a scene and returns a caption that is therefore false of the scene."""

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
ATTEMPTS = 20  # captions drawn per scene until one mentions the changed factor


@dataclass(frozen=True)
class Edit:
    """One kind of edit.

    `change` returns the edited scene, or None if the edit does not apply. `mix` are the fields of the scene Mix with
    which scenes to which the edit applies are common. `floor` is the target of the benchmark.
    """

    change: Callable[[Scene, random.Random, Mix], Scene | None]
    mix: Mapping[str, Any]
    floor: float | None


def caption_pair(scene: Scene, edit: Edit, mix: Mix, rng: random.Random) -> tuple[str, str] | None:
    """Returns a true and a false caption with the same wording, or None if the edit does not apply."""
    for _ in range(ATTEMPTS):
        edited, wording = edit.change(scene, rng, mix), rng.random()
        if edited is None:
            return None
        true, false = (caption(each, random.Random(wording)) for each in (scene, edited))
        if true != false and not is_true(parse(false), scene):
            return true, false
    return None


def wrong_captions(scene: Scene, count: int, mix: Mix) -> list[str]:
    """Returns up to `count` different false captions of a scene, of different kinds of edits if possible."""
    captions: dict[str, None] = {}
    rng = random.Random(scene.seed)
    for edit in islice(cycle(EDITS.values()), ATTEMPTS * len(EDITS)):
        if len(captions) < count and (pair := caption_pair(scene, edit, mix, rng)):
            captions[pair[1]] = None
    return list(captions)


def _replace_thing(scene: Scene, rng: random.Random, mix: Mix) -> Scene:
    present = {thing.concept for thing in scene.things}
    return with_thing(scene, 0, concept=rng.choice([name for name in mix.names if name not in present]))


def _replace_colour(scene: Scene, rng: random.Random, mix: Mix) -> Scene | None:
    recoloured = [k for k, thing in enumerate(scene.things) if thing.colour]
    if not recoloured:
        return None
    return with_thing(scene, recoloured[0], colour=_other(rng, COLOURS, scene.things[recoloured[0]].colour))


def _replace_count(scene: Scene, rng: random.Random, mix: Mix) -> Scene:
    return with_thing(scene, 0, count=_other(rng, (1, 2, 3, 4), scene.things[0].count))


def _replace_place(scene: Scene, rng: random.Random, mix: Mix) -> Scene:
    return replace(scene, place=_other(rng, COLOURS if scene.is_plain else PLACES, scene.place))


def _replace_style(scene: Scene, rng: random.Random, mix: Mix) -> Scene | None:
    return None if scene.style == STYLES[0] else replace(scene, style=_other(rng, STYLES[1:], scene.style))


def swapped_things(scene: Scene, rng: random.Random, mix: Mix) -> Scene | None:
    """Exchanges the first two things if they stand left of, right of, above or below each other."""
    if scene.relation not in SIDES:
        return None
    a, b, *rest = scene.things
    return replace(scene, things=(_renamed(a, b), _renamed(b, a), *rest))


def swapped_colours(scene: Scene, rng: random.Random, mix: Mix) -> Scene | None:
    """Exchanges the colours of the first two things if both are recoloured."""
    if len(scene.things) < 2 or not scene.things[0].colour or not scene.things[1].colour:
        return None
    a, b, *rest = scene.things
    return replace(scene, things=(replace(a, colour=b.colour), replace(b, colour=a.colour), *rest))


def _add_colour(scene: Scene, rng: random.Random, mix: Mix) -> Scene | None:
    """Gives the first thing a colour that differs from the hue of its drawing."""
    first = scene.things[0]
    hue = concepts()[first.concept].hue(first.art)
    return None if first.colour or not hue else with_thing(scene, 0, colour=_other(rng, COLOURS, hue))


EDITS = {
    "replace thing": Edit(_replace_thing, {}, 0.85),
    "replace colour": Edit(_replace_colour, {"coloured": 1.0, "styled": 0.0}, 0.85),
    "replace count": Edit(_replace_count, {"several": 1.0}, 0.85),
    "replace place": Edit(_replace_place, {}, 0.85),
    "replace style": Edit(_replace_style, {"styled": 1.0}, 0.85),
    "swap things": Edit(swapped_things, {"kinds": (0.0, 1.0, 0.0)}, 0.70),
    "swap colours": Edit(swapped_colours, {"kinds": (0.0, 1.0, 0.0), "coloured": 1.0, "styled": 0.0}, 0.70),
    "add colour": Edit(_add_colour, {"coloured": 0.0, "styled": 0.0}, None),
}


def with_thing(scene: Scene, index: int, **changes: Any) -> Scene:
    """Returns a scene with changed fields of one thing."""
    things = list(scene.things)
    things[index] = replace(things[index], **changes)
    return replace(scene, things=tuple(things))


def _renamed(thing: Thing, other: Thing) -> Thing:
    """Returns a thing with its own position, count and size and the concept, drawing and colour of another."""
    return replace(thing, concept=other.concept, drawing=other.drawing, colour=other.colour)


def _other(rng: random.Random, values: tuple[T, ...], value: T) -> T:
    """Returns a random element of `values` that is not `value`."""
    return rng.choice([each for each in values if each != value])
