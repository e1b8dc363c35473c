"""A scene: everything that one picture shows, decided by one integer seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from clipgen.world.concepts import COLOURS, PLACES, STYLES, TIMES, Concept, concepts
from clipgen.world.holdout import held_out, pair

Role = tuple[str, str, str]
TIMED_PLACES = frozenset({"snow", "forest", "beach", "desert", "meadow", "mountains", "city street"})
ABOVE, LEFT = "above", "left"
COUNTED = (2, 1, 1)  # how often several are two, three, four
SIZES = {"big": 1.15, "small": 0.55, "": 0.91}  # heights, as shares of the room for a thing
TEMPTING = 2.0  # how much likelier a drawing stands where it belongs (a fish under the sea)
HOMES = {"water": ("under the sea", "beach"), "sky": ("outer space", "night sky", "sunset"), "table": ("table",)}


@dataclass(frozen=True)
class Thing:
    """One to four drawings of a concept: `boxes` holds (x, foot y, height) of each in units of the picture's side."""

    concept: str
    drawing: str
    count: int
    colour: str
    size: str
    flip: bool
    boxes: tuple[tuple[float, float, float], ...]
    art: str = "flat"

    @property
    def centre(self) -> tuple[float, float]:
        """Mean centre of its boxes (x, y), in units of the picture's side, y downwards."""
        n = len(self.boxes)
        return sum(b[0] for b in self.boxes) / n, sum(b[1] - b[2] / 2 for b in self.boxes) / n


@dataclass(frozen=True)
class Scene:
    """What a picture shows; `place` is one of PLACES or a plain colour, `relation` joins the first two things."""

    seed: int
    things: tuple[Thing, ...]
    place: str
    time: str
    style: str
    relation: str

    @property
    def is_plain(self) -> bool:
        """Whether the background is one colour and no place."""
        return self.place in COLOURS

    def roles(self) -> Iterator[Role]:
        """Yields ("left", a, b) and ("above", a, b) for every two things that clearly stand so."""
        for a, b in combinations(self.things, 2):
            (ax, ay), (bx, by) = a.centre, b.centre
            if abs(ax - bx) > max(abs(ay - by), 0.1):
                yield (LEFT, *((a.concept, b.concept) if ax < bx else (b.concept, a.concept)))
            elif abs(ay - by) > 0.1:
                yield (ABOVE, *((a.concept, b.concept) if ay < by else (b.concept, a.concept)))


def cells(scene: Scene) -> Iterator[tuple[str, ...]]:
    """Yields every cell that a scene realises, read off its layout and not its caption."""
    for thing in scene.things:
        if thing.count > 1:
            yield ("count", thing.concept, str(thing.count))
        if thing.colour:
            yield ("colour", thing.concept, thing.colour)
        if not scene.is_plain:
            yield ("scene", thing.concept, scene.place)
        if scene.style != "picture book":
            yield ("style", thing.concept, scene.style)
    names = [thing.concept for thing in scene.things]
    for i, a in enumerate(names):
        yield from (pair(a, b) for b in names[i + 1 :])
    yield from (("role", *role) for role in scene.roles())


@dataclass(frozen=True)
class Mix:
    """How often things happen in a world: the vocabulary (highest tier) and the shares of each kind of scene.

    `looseness` scales how much single things differ in place and size; `drawings` is how many drawings of a concept
    occur at most: few poses of few drawings are learnt from a fraction of the pictures. `arts` are the sets of drawings
    (art.py).
    """

    tier: int = 3
    favourites: float = 4.0
    kinds: tuple[float, float, float] = (0.55, 0.36, 0.09)
    several: float = 0.22
    coloured: float = 0.25
    plain: float = 0.10
    styled: float = 0.25
    timed: float = 0.2
    sized: float = 0.12
    looseness: float = 1.0
    drawings: int = 9
    arts: tuple[str, ...] = ("flat",)

    @property
    def names(self) -> list[str]:
        """The concepts that it shows, in the order of the vocabulary."""
        return [name for name, concept in concepts().items() if concept.tier <= self.tier]


def sample_scene(seed: int, mix: Mix = Mix()) -> Scene:
    """Draws the scene of a seed: any that realises no held-out cell; a held-out role swaps its two things."""
    rng = random.Random(seed)
    while True:
        scene = _draw(rng, seed, mix)
        broken = [cell for cell in cells(scene) if held_out(*cell)]
        if broken and all(cell[0] == "role" for cell in broken):
            scene = _mirrored(scene)
            broken = [cell for cell in cells(scene) if held_out(*cell)]
        if not broken:
            return scene


def _mirrored(scene: Scene) -> Scene:
    """Swaps the boxes of the first two things, so that each takes the other's role."""
    a, b, *rest = scene.things
    if a.count != b.count:
        return scene
    relation = OPPOSITE.get(scene.relation, scene.relation)
    a, b = _with_boxes(a, b.boxes), _with_boxes(b, a.boxes)
    return replace(scene, things=(a, b, *rest), relation=relation)


def _with_boxes(thing: Thing, boxes: tuple[tuple[float, float, float], ...]) -> Thing:
    return replace(thing, boxes=boxes)


OPPOSITE = {
    "left of": "right of", "right of": "left of", "above": "below", "below": "above",
    "on top of": "below", "in front of": "behind", "behind": "in front of",
}  # fmt: skip


def _pool(mix: Mix) -> tuple[list[Concept], list[float]]:
    chosen = [concepts()[name] for name in mix.names]
    return chosen, [mix.favourites if c.tier == 1 else 1.0 for c in chosen]


def _draw(rng: random.Random, seed: int, mix: Mix) -> Scene:
    kinds = rng.choices((1, 2, 3), mix.kinds)[0]
    pool, weights = _pool(mix)
    chosen: list[Concept] = []
    while len(chosen) < kinds:
        (concept,) = rng.choices(pool, weights)
        if concept not in chosen:
            chosen.append(concept)
    style = rng.choice(STYLES[1:]) if rng.random() < mix.styled else STYLES[0]
    plain = style not in COLOURLESS and rng.random() < mix.plain
    place = rng.choice(COLOURS) if plain else _place(rng, chosen[0])
    time = rng.choice(TIMES[1:]) if place in TIMED_PLACES and rng.random() < mix.timed else "day"
    counts = [rng.choices((2, 3, 4), COUNTED)[0] if rng.random() < mix.several / kinds else 1 for _ in chosen]
    art = rng.choice(mix.arts) if len(mix.arts) > 1 else mix.arts[0]
    coloured = 0.0 if style in COLOURLESS else mix.coloured
    relation, things = _layout(rng, chosen, counts, place, coloured, mix, art)
    return Scene(seed, tuple(things), place, time, style, relation)


def _place(rng: random.Random, first: Concept) -> str:
    homes = HOMES.get(first.stance, ())
    return rng.choices(PLACES, [TEMPTING if place in homes else 1.0 for place in PLACES])[0]


def _layout(
    rng: random.Random, chosen: list[Concept], counts: list[int], place: str, coloured: float, mix: Mix, art: str
) -> tuple[str, list[Thing]]:
    """Places every thing: one in the middle, two by a relation, three in a row."""
    sizes = [rng.choice(("big", "small")) if rng.random() < mix.sized else "" for _ in chosen]
    relation = rng.choice((*tuple(OPPOSITE), "next to", "next to")) if len(chosen) == 2 else ""
    things = []
    for concept, count, size, (x, foot, room) in zip(
        chosen, counts, sizes, _centres(rng, len(chosen), relation, mix.looseness), strict=True
    ):
        loose = mix.looseness * rng.uniform(-0.09, 0.09)
        height = room * (SIZES[size] + (0.0 if size else loose))
        lift = 0.0
        if place in FLOATING or (concept.stance == "sky" and relation not in OPPOSITE):
            lift = 0.14 + mix.looseness * rng.uniform(-0.08, 0.08) if len(chosen) == 1 else rng.uniform(0.0, 0.08)
        boxes = _inside(_boxes(rng, count, x, foot - lift, height, room))
        colour = rng.choice(COLOURS) if concept.hue(art) and rng.random() < coloured else ""
        drawing = rng.choice(concept.drawings[: mix.drawings])
        things.append(Thing(concept.name, drawing, count, colour, size, rng.random() < 0.3 * mix.looseness, boxes, art))
    if relation == "on top of":
        things[0] = _standing_on(things[0], things[1])
    return relation, things


def with_count(rng: random.Random, thing: Thing, count: int, kinds: int) -> Thing:
    """Returns so many of a thing where it stands, in a scene with `kinds` kinds of things."""
    room = {1: 0.66, 2: 0.44, 3: 0.36}[kinds]
    foot = max(foot for _, foot, _ in thing.boxes)
    boxes = _boxes(rng, count, thing.centre[0], foot, room * SIZES[thing.size], room)
    return replace(thing, count=count, boxes=_inside(boxes))


def _standing_on(top: Thing, base: Thing) -> Thing:
    """Lowers the first thing until it stands on the second."""
    drop = min(y - h for _, y, h in base.boxes) + 0.02 - max(y for _, y, _ in top.boxes)
    return _with_boxes(top, _inside(tuple((x, y + drop, h) for x, y, h in top.boxes)))


def _inside(boxes: tuple[tuple[float, float, float], ...]) -> tuple[tuple[float, float, float], ...]:
    """Shrinks and shifts a group of boxes until it lies within the picture, a small margin kept."""
    left, right = min(x - h / 2 for x, _, h in boxes), max(x + h / 2 for x, _, h in boxes)
    top, bottom = min(y - h for _, y, h in boxes), max(y for _, y, _ in boxes)
    shrink = min(1.0, 0.96 / (right - left), 0.96 / (bottom - top))
    x0 = min(max(left, 0.02), 0.98 - (right - left) * shrink)
    y0 = min(max(top, 0.02), 0.98 - (bottom - top) * shrink)
    return tuple((x0 + (x - left) * shrink, y0 + (y - top) * shrink, h * shrink) for x, y, h in boxes)


COLOURLESS = frozenset({"black and white", "pencil sketch", "neon"})
FLOATING = frozenset({"outer space", "under the sea", *COLOURS})


def _centres(rng: random.Random, kinds: int, relation: str, looseness: float) -> list[tuple[float, float, float]]:
    """Returns (x, foot y, room) for each thing, in units of the picture's side."""

    def jitter(spread: float) -> float:
        return rng.uniform(-spread, spread)

    if kinds == 1:
        return [(0.5 + looseness * jitter(0.1), 0.88 + looseness * jitter(0.05), 0.66 + looseness * jitter(0.08))]
    if kinds == 3:
        order = [0.2, 0.5, 0.8]
        rng.shuffle(order)
        return [(x + jitter(0.03), 0.86 + jitter(0.05), rng.uniform(0.32, 0.4)) for x in order]
    left, right = (0.27 + jitter(0.03), 0.88 + jitter(0.04)), (0.73 + jitter(0.03), 0.88 + jitter(0.04))
    room = rng.uniform(0.42, 0.5)
    if relation in ("left of", "right of", "next to"):
        swap = relation == "right of" or (relation == "next to" and rng.random() < 0.5)
        a, b = (right, left) if swap else (left, right)
        return [(*a, room), (*b, room)]
    x = 0.5 + jitter(0.12)
    if relation in ("above", "below", "on top of"):
        room *= 0.92
        gap = 0.0 if relation == "on top of" else rng.uniform(0.03, 0.07)
        low, high = (x, 0.94, room), (x + jitter(0.06), 0.94 - room - gap, room * 0.95)
        return [low, high] if relation == "below" else [high, low]
    front, back = (x - 0.13, 0.93, room), (x + 0.15, 0.72, room * 1.05)
    if rng.random() < 0.5:
        front, back = (x + 0.13, 0.93, room), (x - 0.15, 0.72, room * 1.05)
    return [front, back] if relation == "in front of" else [back, front]


def _boxes(
    rng: random.Random, count: int, x: float, foot: float, height: float, room: float
) -> tuple[tuple[float, float, float], ...]:
    """Spreads `count` copies around (x, foot): side by side, four as two rows."""
    if count == 1:
        return ((x, foot, height),)
    wide = room > 0.55  # the picture is theirs alone
    rows = [count] if count < 4 and (wide or count == 2) else [count - count // 2, count // 2]
    scale = {1: 0.74 if count == 2 else 0.48, 2: 0.56}[len(rows)] if wide else {1: 0.55, 2: 0.5}[len(rows)]
    size, boxes = height * scale, []
    for row, n in enumerate(rows):
        for k in range(n):
            dx = (k - (n - 1) / 2) * size * rng.uniform(1.06, 1.16)
            dy = row * size * 1.08 + rng.uniform(-0.02, 0.02)
            boxes.append((x + dx if not wide else 0.5 + dx, foot - dy, size))
    return tuple(boxes)
