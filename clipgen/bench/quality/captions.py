"""Captions of unseen compositions, read back by the grammar and held against what the pictures show."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from clipgen.bench.quality.figures import Figure, share
from clipgen.captioning.clip_captioner import Captioner
from clipgen.world.grammar import caption
from clipgen.world.parse import ParsedCaption, parse
from clipgen.world.render import render
from clipgen.world.scene import Mix, Scene
from clipgen.world.truth import is_true, relations, thing_is_true
from clipgen.world.unseen import Split, unseen

FLOORS = {"thing F1": 0.85, "attribute F1": 0.75, "relation": 0.65, "exact": 0.35}
SIDE = 128
AT_ONCE = 16


def captions(writer: Captioner, count: int, mix: Mix, split: Split, side: int = SIDE) -> list[Figure]:
    """Captions `count` pictures and measures that; the chance is what captions of other pictures reach.

    The ceiling is what the grammar's own captions reach, which leave things out at random.
    """
    scenes = list(islice(unseen(mix, split, stream=4), count))
    written: list[str] = []
    for start in range(0, count, AT_ONCE):
        written += writer.caption([render(scene, side) for scene in scenes[start : start + AT_ONCE]])
    said = [parse(text) for text in written]
    ideal = measured([parse(caption(scene, random.Random(scene.seed))) for scene in scenes], scenes)
    luck = measured([*said[1:], said[0]], scenes)
    part = f"captions ({writer.kind})"
    return [
        Figure(part, name, value, cases, None, luck[name][0], FLOORS.get(name), ideal[name][0])
        for name, (value, cases) in measured(said, scenes).items()
    ]


def measured(said: Sequence[ParsedCaption], scenes: Sequence[Scene]) -> dict[str, tuple[float, int]]:
    """Returns every measure of captions with the number of its cases.

    `attribute` are a thing with its colour, size or number above one; `relation` counts the captions that tell one,
    `place` and `style` those that tell it where there is one; `exact` = all things right in all that is told of
    them, none left out and nothing false.
    """
    pairs = list(zip(said, scenes, strict=True))
    told = [relation in set(relations(scene)) for (relation, scene) in ((s.relation, c) for s, c in pairs) if relation]
    several = [(s, thing) for s, scene in pairs for thing in scene.things if thing.count > 1]
    counted = [
        any(each.concept == thing.concept and each.count == thing.count for each in s.things) for s, thing in several
    ]
    shares = {
        "relation": told,
        "count": counted,
        "place": [s.place == scene.place for s, scene in pairs],
        "style": [s.style == scene.style for s, scene in pairs if scene.style != "picture book"],
        "exact": [exact(s, scene) for s, scene in pairs],
        "exact, one thing": [exact(s, scene) for s, scene in pairs if len(scene.things) == 1],
        "exact, several things": [exact(s, scene) for s, scene in pairs if len(scene.things) > 1],
        "nothing false": [is_true(s, scene) for s, scene in pairs],
    }
    things = f1((Counter(t.concept for t in s.things), Counter(t.concept for t in scene.things)) for s, scene in pairs)
    details = f1((_told(s), _shown(scene)) for s, scene in pairs)
    return {
        "thing F1": (things, len(pairs)),
        "attribute F1": (details, len(pairs)),
        **{name: (share("", name, hits).value, len(hits)) for name, hits in shares.items()},
    }


def exact(said: ParsedCaption, scene: Scene) -> bool:
    """Tells whether a caption names each thing once with its number and colour, and says nothing false."""
    shown = {thing.concept: thing for thing in scene.things}
    complete = sorted(thing.concept for thing in said.things) == sorted(shown)
    return complete and is_true(said, scene) and all(
        thing_is_true(thing, shown[thing.concept]) and (thing.colour or not shown[thing.concept].colour)
        for thing in said.things
    )  # fmt: skip


def f1(pairs: Iterable[tuple[Counter[str], Counter[str]]]) -> float:
    """Returns the F1 over all of what was told and what is so, each a multiset of names."""
    both = told = so = 0
    for said, true in pairs:
        both += (said & true).total()
        told += said.total()
        so += true.total()
    return 2 * both / (told + so) if told + so else 0.0


def _told(said: ParsedCaption) -> Counter[str]:
    return _details((t.concept, t.colour, t.size, t.count) for t in said.things)


def _shown(scene: Scene) -> Counter[str]:
    return _details((t.concept, t.colour, t.size, t.count) for t in scene.things)


def _details(things: Iterable[tuple[str, str, str, int]]) -> Counter[str]:
    return Counter(
        f"{concept} {detail}"
        for concept, colour, size, count in things
        for detail in (colour, size, str(count) if count > 1 else "")
        if detail
    )
