"""Accuracy of captions: the grammar parses each caption, which is then compared with the scene that was rendered."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from clipgen.bench.quality.metrics import Metric, share
from clipgen.captioning.clip_captioner import Captioner
from clipgen.world.grammar import caption
from clipgen.world.parse import ParsedCaption, parse
from clipgen.world.render import render
from clipgen.world.scene import Mix, Scene
from clipgen.world.truth import is_true, relations, thing_is_true
from clipgen.world.unseen import Split, unseen

FLOORS = {"thing F1": 0.85, "attribute F1": 0.75, "relation": 0.65, "exact": 0.35}
SIDE = 128
BATCH_SIZE = 16


def captions(captioner: Captioner, count: int, mix: Mix, split: Split, side: int = SIDE) -> list[Metric]:
    """Captions `count` renders of unseen scenes and returns the metrics of `caption_scores`.

    Chance is the score of the captions assigned to the wrong renders. Ceiling is the score of the grammar's own
    captions, which leave out facts at random.
    """
    scenes = list(islice(unseen(mix, split, stream=4), count))
    texts: list[str] = []
    for start in range(0, count, BATCH_SIZE):
        texts += captioner.caption([render(scene, side) for scene in scenes[start : start + BATCH_SIZE]])
    parsed = [parse(text) for text in texts]
    ceiling = caption_scores([parse(caption(scene, random.Random(scene.seed))) for scene in scenes], scenes)
    chance = caption_scores([*parsed[1:], parsed[0]], scenes)
    part = f"captions ({captioner.kind})"
    return [
        Metric(part, name, value, cases, None, chance[name][0], FLOORS.get(name), ceiling[name][0])
        for name, (value, cases) in caption_scores(parsed, scenes).items()
    ]


def caption_scores(parsed: Sequence[ParsedCaption], scenes: Sequence[Scene]) -> dict[str, tuple[float, int]]:
    """Returns every metric of parsed captions with its number of cases.

    `attribute F1` is over the colours, sizes and counts above one of the things. `relation` counts only the captions
    that state one; `place` and `style` count the scenes that have one. `exact`: the caption names all things, with
    correct facts only.
    """
    pairs = list(zip(parsed, scenes, strict=True))
    several = [(p, thing) for p, scene in pairs for thing in scene.things if thing.count > 1]
    hits = {
        "relation": [p.relation in set(relations(scene)) for p, scene in pairs if p.relation],
        "count": [any((t.concept, t.count) == (thing.concept, thing.count) for t in p.things) for p, thing in several],
        "place": [p.place == scene.place for p, scene in pairs],
        "style": [p.style == scene.style for p, scene in pairs if scene.style != "picture book"],
        "exact": [is_exact(p, scene) for p, scene in pairs],
        "exact, one thing": [is_exact(p, scene) for p, scene in pairs if len(scene.things) == 1],
        "exact, several things": [is_exact(p, scene) for p, scene in pairs if len(scene.things) > 1],
        "nothing false": [is_true(p, scene) for p, scene in pairs],
    }
    things = f1((_concepts(p), _concepts(scene)) for p, scene in pairs)
    attributes = f1((_attributes(p), _attributes(scene)) for p, scene in pairs)
    return {
        "thing F1": (things, len(pairs)),
        "attribute F1": (attributes, len(pairs)),
        **{name: (share("", name, values).value, len(values)) for name, values in hits.items()},
    }


def is_exact(parsed: ParsedCaption, scene: Scene) -> bool:
    """Tells whether a caption names each thing once with its count and colour and states nothing false."""
    things = {thing.concept: thing for thing in scene.things}
    if sorted(thing.concept for thing in parsed.things) != sorted(things) or not is_true(parsed, scene):
        return False
    return all(
        thing_is_true(thing, things[thing.concept]) and bool(thing.colour or not things[thing.concept].colour)
        for thing in parsed.things
    )


def f1(pairs: Iterable[tuple[Counter[str], Counter[str]]]) -> float:
    """Returns the micro-averaged F1 of predicted against true multisets of names; 0 if all are empty."""
    common = predicted_total = true_total = 0
    for predicted, true in pairs:
        common += (predicted & true).total()
        predicted_total += predicted.total()
        true_total += true.total()
    return 2 * common / (predicted_total + true_total) if predicted_total + true_total else 0.0


def _concepts(source: ParsedCaption | Scene) -> Counter[str]:
    return Counter(thing.concept for thing in source.things)


def _attributes(source: ParsedCaption | Scene) -> Counter[str]:
    """Returns `concept attribute` for the colour, size and count above one of every thing."""
    return Counter(
        f"{thing.concept} {attribute}"
        for thing in source.things
        for attribute in (thing.colour, thing.size, str(thing.count) if thing.count > 1 else "")
        if attribute
    )
