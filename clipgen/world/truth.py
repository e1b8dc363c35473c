"""What of a caption is true of a scene, read off the scene's layout."""

from __future__ import annotations

from collections.abc import Iterator

from clipgen.world.concepts import concepts
from clipgen.world.parse import ParsedCaption, ParsedThing
from clipgen.world.scene import ABOVE, LEFT, OPPOSITE, Scene, Thing

NEXT = "next to"
WORDS = {LEFT: ("left of", "right of"), ABOVE: ("above", "below")}


def is_true(said: ParsedCaption, scene: Scene) -> bool:
    """Tells whether nothing that a caption says is false of a scene; what it leaves out does not count."""
    shown = {thing.concept: thing for thing in scene.things}
    return (
        not said.unknown
        and all(said_thing.concept in shown for said_thing in said.things)
        and all(thing_is_true(said_thing, shown[said_thing.concept]) for said_thing in said.things)
        and said.place in ("", scene.place)
        and said.time in ("", scene.time)
        and said.style in ("", scene.style)
        and (not said.relation or said.relation in set(relations(scene)))
    )


def thing_is_true(said: ParsedThing, thing: Thing) -> bool:
    """Tells whether a thing of a caption is a scene's, as many of it, in its colour and of its size where told."""
    return (
        said.concept == thing.concept
        and said.count == thing.count
        and said.colour in ("", colour_of(thing))
        and said.size in ("", thing.size)
    )


def colour_of(thing: Thing) -> str:
    """Returns the colour of a thing: what it was dyed, else the one hue of its drawing; empty if it has many."""
    return thing.colour or concepts()[thing.concept].hue(thing.art)


def relations(scene: Scene) -> Iterator[tuple[str, str, str]]:
    """Yields every (a, relation, b) that holds between two things of a scene."""
    for kind, a, b in scene.roles():
        forth, back = WORDS[kind]
        yield from ((a, forth, b), (b, back, a))
        yield from ((a, NEXT, b), (b, NEXT, a)) if kind == LEFT else ()
    if scene.relation:
        a, b = (thing.concept for thing in scene.things[:2])
        yield (a, scene.relation, b)
        yield (b, OPPOSITE.get(scene.relation, scene.relation), a)
        if scene.relation == "on top of":
            yield (a, "above", b)
