"""Checks a parsed caption against the layout of a scene."""

from __future__ import annotations

from collections.abc import Iterator

from clipgen.world.concepts import concepts
from clipgen.world.parse import ParsedCaption, ParsedThing
from clipgen.world.scene import ABOVE, LEFT, OPPOSITE, Scene, Thing

NEXT_TO = "next to"
RELATIONS_OF_ROLE = {LEFT: ("left of", "right of"), ABOVE: ("above", "below")}  # a to b, b to a


def is_true(caption: ParsedCaption, scene: Scene) -> bool:
    """Returns whether every detail that a caption names is true of a scene. A caption with unknown words is not."""
    things = {thing.concept: thing for thing in scene.things}
    return (
        not caption.unknown
        and all(thing.concept in things for thing in caption.things)
        and all(thing_is_true(thing, things[thing.concept]) for thing in caption.things)
        and caption.place in ("", scene.place)
        and caption.time in ("", scene.time)
        and caption.style in ("", scene.style)
        and (not caption.relation or caption.relation in set(relations(scene)))
    )


def thing_is_true(parsed: ParsedThing, thing: Thing) -> bool:
    """Returns whether a thing of a caption has the concept and count of a scene's thing, and its colour and size.

    A colour or size that the caption does not name is true.
    """
    return (
        parsed.concept == thing.concept
        and parsed.count == thing.count
        and parsed.colour in ("", colour_of(thing))
        and parsed.size in ("", thing.size)
    )


def colour_of(thing: Thing) -> str:
    """Returns the colour a thing was given, or else the dominant hue of its drawing; empty if it has none."""
    return thing.colour or concepts()[thing.concept].hue(thing.art)


def relations(scene: Scene) -> Iterator[tuple[str, str, str]]:
    """Yields every relation (a, relation, b) that holds between two things of a scene, by their concepts."""
    for kind, a, b in scene.roles():
        forward, backward = RELATIONS_OF_ROLE[kind]
        yield from ((a, forward, b), (b, backward, a))
        if kind == LEFT:
            yield from ((a, NEXT_TO, b), (b, NEXT_TO, a))
    if scene.relation:
        a, b = (thing.concept for thing in scene.things[:2])
        yield (a, scene.relation, b)
        yield (b, OPPOSITE.get(scene.relation, scene.relation), a)
        if scene.relation == "on top of":
            yield (a, ABOVE, b)
