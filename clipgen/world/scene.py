"""Scenes: everything that one image shows, decided by one integer seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from clipgen.world.concepts import COLOURS, PLACES, STYLES, TIMES, Concept, concepts
from clipgen.world.holdout import held_out, pair

Role = tuple[str, str, str]  # ("left" or "above", concept a, concept b)
Box = tuple[float, float, float]  # x of the middle, y of the foot, height; a box is as wide as it is high
TIMED_PLACES = frozenset({"snow", "forest", "beach", "desert", "meadow", "mountains", "city street"})
FLOATING = frozenset({"outer space", "under the sea", *COLOURS})  # places without a ground to stand on
COLOURLESS = frozenset({"black and white", "pencil sketch", "neon"})  # styles that do not show a thing's colour
ABOVE, LEFT = "above", "left"
OPPOSITE = {
    "left of": "right of", "right of": "left of", "above": "below", "below": "above",
    "on top of": "below", "in front of": "behind", "behind": "in front of",
}  # fmt: skip
COUNT_WEIGHTS = (2, 1, 1)  # of the counts two, three and four
SIZES = {"big": 1.15, "small": 0.55, "": 0.91}  # height of a thing as a share of the height available to it
HOME_WEIGHT = 2.0  # of each place where a concept belongs (a fish under the sea); other places have weight 1
HOMES = {"water": ("under the sea", "beach"), "sky": ("outer space", "night sky", "sunset"), "table": ("table",)}


@dataclass(frozen=True)
class Thing:
    """One to four copies of a concept's drawing.

    Attributes:
        concept: Name of the concept.
        drawing: The drawing (an emoji or the name of one of ours).
        count: Number of copies, 1 to 4.
        colour: Colour that replaces the drawing's dominant hue; empty for the original colours.
        size: "big", "small" or empty.
        flip: Whether the drawing is mirrored.
        boxes: (x of the middle, y of the foot, height) per copy, in units of the image's side, y downwards.
        art: The set of drawings: "flat", "3d" or "noto".
    """

    concept: str
    drawing: str
    count: int
    colour: str
    size: str
    flip: bool
    boxes: tuple[Box, ...]
    art: str = "flat"

    @property
    def centre(self) -> tuple[float, float]:
        """Mean centre (x, y) of the boxes, in units of the image's side, y downwards."""
        n = len(self.boxes)
        return sum(b[0] for b in self.boxes) / n, sum(b[1] - b[2] / 2 for b in self.boxes) / n


@dataclass(frozen=True)
class Scene:
    """The content of one image.

    Attributes:
        seed: Decides the scene and, in `render`, the details of the background.
        things: One to three things.
        place: One of PLACES, or a colour for a plain background.
        time: One of TIMES.
        style: One of STYLES.
        relation: Relation of the first thing to the second; empty if there are not exactly two things.
    """

    seed: int
    things: tuple[Thing, ...]
    place: str
    time: str
    style: str
    relation: str

    @property
    def is_plain(self) -> bool:
        """Whether the background is one colour instead of a place."""
        return self.place in COLOURS

    def roles(self) -> Iterator[Role]:
        """Yields ("left", a, b) or ("above", a, b) for every two things whose centres are more than 0.1 apart."""
        for a, b in combinations(self.things, 2):
            (ax, ay), (bx, by) = a.centre, b.centre
            if abs(ax - bx) > max(abs(ay - by), 0.1):
                yield (LEFT, *((a.concept, b.concept) if ax < bx else (b.concept, a.concept)))
            elif abs(ay - by) > 0.1:
                yield (ABOVE, *((a.concept, b.concept) if ay < by else (b.concept, a.concept)))


@dataclass(frozen=True)
class Mix:
    """The distribution of scenes: which vocabulary they use and how often each kind of scene occurs.

    Attributes:
        tier: Highest tier of the vocabulary, 1 to 3.
        favourites: Weight of a concept of tier 1; other concepts have weight 1.
        kinds: Weights of scenes with one, two and three different things.
        several: Expected number of things per scene with a count above 1.
        coloured: Share of the recolourable things that get a colour.
        plain: Share of the scenes with a plain background.
        styled: Share of the scenes with another style than "picture book".
        timed: Share of the scenes in TIMED_PLACES with another time than "day".
        sized: Share of the things that are big or small.
        looseness: Scales the random differences in position and size. A smaller value is learnt from fewer images.
        drawings: Most drawings used per concept. A smaller value is learnt from fewer images.
        arts: The sets of drawings, one of them chosen per scene; a set may repeat.
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
        """Names of its concepts, in the order of the vocabulary."""
        return [name for name, concept in concepts().items() if concept.tier <= self.tier]


def cells(scene: Scene) -> Iterator[tuple[str, ...]]:
    """Yields every cell that a scene contains (see `holdout`). Cells are read off the layout, not off a caption."""
    for thing in scene.things:
        if thing.count > 1:
            yield ("count", thing.concept, str(thing.count))
        if thing.colour:
            yield ("colour", thing.concept, thing.colour)
        if not scene.is_plain:
            yield ("scene", thing.concept, scene.place)
        if scene.style != "picture book":
            yield ("style", thing.concept, scene.style)
    yield from (pair(a.concept, b.concept) for a, b in combinations(scene.things, 2))
    yield from (("role", *role) for role in scene.roles())


def sample_scene(seed: int, mix: Mix = Mix()) -> Scene:
    """Returns the scene of a seed, without held-out cells.

    Scenes are drawn until one has no held-out cell. If all held-out cells of a scene are roles, its first two things
    change places before the scene is discarded.
    """
    rng = random.Random(seed)
    while True:
        scene = sample_any_scene(rng, seed, mix)
        forbidden = held_out_cells(scene)
        if forbidden and all(cell[0] == "role" for cell in forbidden):
            scene = _swap_places(scene)
            forbidden = held_out_cells(scene)
        if not forbidden:
            return scene


def held_out_cells(scene: Scene) -> list[tuple[str, ...]]:
    """Returns the held-out cells that a scene contains."""
    return [cell for cell in cells(scene) if held_out(*cell)]


def _swap_places(scene: Scene) -> Scene:
    """Swaps the boxes of the first two things if they have the same count."""
    a, b, *rest = scene.things
    if a.count != b.count:
        return scene
    relation = OPPOSITE.get(scene.relation, scene.relation)
    return replace(scene, things=(replace(a, boxes=b.boxes), replace(b, boxes=a.boxes), *rest), relation=relation)


def sample_any_scene(rng: random.Random, seed: int, mix: Mix) -> Scene:
    """Returns one random scene, which may contain held-out cells."""
    kinds = rng.choices((1, 2, 3), mix.kinds)[0]
    sampled = _sample_concepts(rng, mix, kinds)
    style = rng.choice(STYLES[1:]) if rng.random() < mix.styled else STYLES[0]
    plain = style not in COLOURLESS and rng.random() < mix.plain
    place = rng.choice(COLOURS) if plain else _sample_place(rng, sampled[0])
    time = rng.choice(TIMES[1:]) if place in TIMED_PLACES and rng.random() < mix.timed else "day"
    counts = [rng.choices((2, 3, 4), COUNT_WEIGHTS)[0] if rng.random() < mix.several / kinds else 1 for _ in sampled]
    art = rng.choice(mix.arts) if len(mix.arts) > 1 else mix.arts[0]
    coloured = 0.0 if style in COLOURLESS else mix.coloured
    relation, things = _lay_out(rng, sampled, counts, place, coloured, mix, art)
    return Scene(seed, tuple(things), place, time, style, relation)


def _sample_concepts(rng: random.Random, mix: Mix, count: int) -> list[Concept]:
    """Returns different random concepts of a mix."""
    pool = [concepts()[name] for name in mix.names]
    weights = [mix.favourites if concept.tier == 1 else 1.0 for concept in pool]
    sampled: list[Concept] = []
    while len(sampled) < count:
        (concept,) = rng.choices(pool, weights)
        if concept not in sampled:
            sampled.append(concept)
    return sampled


def _sample_place(rng: random.Random, first: Concept) -> str:
    """Returns a random place; the places where the first concept belongs are more likely."""
    homes = HOMES.get(first.stance, ())
    return rng.choices(PLACES, [HOME_WEIGHT if place in homes else 1.0 for place in PLACES])[0]


def _lay_out(
    rng: random.Random, sampled: list[Concept], counts: list[int], place: str, coloured: float, mix: Mix, art: str
) -> tuple[str, list[Thing]]:
    """Returns the relation and the things with their boxes: one in the middle, two by a relation, three in a row."""
    sizes = [rng.choice(("big", "small")) if rng.random() < mix.sized else "" for _ in sampled]
    relation = rng.choice((*tuple(OPPOSITE), "next to", "next to")) if len(sampled) == 2 else ""
    things = []
    for concept, count, size, (x, foot, available) in zip(
        sampled, counts, sizes, _positions(rng, len(sampled), relation, mix.looseness), strict=True
    ):
        jitter = mix.looseness * rng.uniform(-0.09, 0.09)
        height = available * (SIZES[size] + (0.0 if size else jitter))
        lift = 0.0
        if place in FLOATING or (concept.stance == "sky" and relation not in OPPOSITE):
            lift = 0.14 + mix.looseness * rng.uniform(-0.08, 0.08) if len(sampled) == 1 else rng.uniform(0.0, 0.08)
        boxes = _fit_inside(_boxes(rng, count, x, foot - lift, height, available))
        colour = rng.choice(COLOURS) if concept.hue(art) and rng.random() < coloured else ""
        drawing = rng.choice(concept.drawings[: mix.drawings])
        things.append(Thing(concept.name, drawing, count, colour, size, rng.random() < 0.3 * mix.looseness, boxes, art))
    if relation == "on top of":
        things[0] = _stand_on(things[0], things[1])
    return relation, things


def with_count(rng: random.Random, thing: Thing, count: int, kinds: int) -> Thing:
    """Returns a thing with another count at the same position.

    Args:
        rng: Draws the new boxes.
        thing: The thing.
        count: The new count, 1 to 4.
        kinds: Number of different things in its scene, 1 to 3.
    """
    available = {1: 0.66, 2: 0.44, 3: 0.36}[kinds]
    foot = max(foot for _, foot, _ in thing.boxes)
    boxes = _boxes(rng, count, thing.centre[0], foot, available * SIZES[thing.size], available)
    return replace(thing, count=count, boxes=_fit_inside(boxes))


def _stand_on(top: Thing, base: Thing) -> Thing:
    """Returns the first thing moved vertically so that its lowest foot is on the top edge of the second."""
    drop = min(y - h for _, y, h in base.boxes) + 0.02 - max(y for _, y, _ in top.boxes)
    return replace(top, boxes=_fit_inside(tuple((x, y + drop, h) for x, y, h in top.boxes)))


def _fit_inside(boxes: tuple[Box, ...]) -> tuple[Box, ...]:
    """Shrinks and shifts a group of boxes so that it lies inside the image with a margin of 0.02."""
    left, right = min(x - h / 2 for x, _, h in boxes), max(x + h / 2 for x, _, h in boxes)
    top, bottom = min(y - h for _, y, h in boxes), max(y for _, y, _ in boxes)
    shrink = min(1.0, 0.96 / (right - left), 0.96 / (bottom - top))
    x0 = min(max(left, 0.02), 0.98 - (right - left) * shrink)
    y0 = min(max(top, 0.02), 0.98 - (bottom - top) * shrink)
    return tuple((x0 + (x - left) * shrink, y0 + (y - top) * shrink, h * shrink) for x, y, h in boxes)


def _positions(rng: random.Random, kinds: int, relation: str, looseness: float) -> list[Box]:
    """Returns (x, y of the foot, available height) per thing, in units of the image's side."""

    def jitter(spread: float) -> float:
        return rng.uniform(-spread, spread)

    if kinds == 1:
        return [(0.5 + looseness * jitter(0.1), 0.88 + looseness * jitter(0.05), 0.66 + looseness * jitter(0.08))]
    if kinds == 3:
        columns = [0.2, 0.5, 0.8]
        rng.shuffle(columns)
        return [(x + jitter(0.03), 0.86 + jitter(0.05), rng.uniform(0.32, 0.4)) for x in columns]
    left, right = (0.27 + jitter(0.03), 0.88 + jitter(0.04)), (0.73 + jitter(0.03), 0.88 + jitter(0.04))
    available = rng.uniform(0.42, 0.5)
    if relation in ("left of", "right of", "next to"):
        swap = relation == "right of" or (relation == "next to" and rng.random() < 0.5)
        a, b = (right, left) if swap else (left, right)
        return [(*a, available), (*b, available)]
    x = 0.5 + jitter(0.12)
    if relation in ("above", "below", "on top of"):
        available *= 0.92
        gap = 0.0 if relation == "on top of" else rng.uniform(0.03, 0.07)
        low, high = (x, 0.94, available), (x + jitter(0.06), 0.94 - available - gap, available * 0.95)
        return [low, high] if relation == "below" else [high, low]
    front, back = (x - 0.13, 0.93, available), (x + 0.15, 0.72, available * 1.05)
    if rng.random() < 0.5:
        front, back = (x + 0.13, 0.93, available), (x - 0.15, 0.72, available * 1.05)
    return [front, back] if relation == "in front of" else [back, front]


def _boxes(rng: random.Random, count: int, x: float, foot: float, height: float, available: float) -> tuple[Box, ...]:
    """Returns one box per copy around (x, foot): up to three side by side, four in two rows."""
    if count == 1:
        return ((x, foot, height),)
    alone = available > 0.55  # the only thing of the image: its copies may use the whole width
    rows = [count] if count < 4 and (alone or count == 2) else [count - count // 2, count // 2]
    scale = {1: 0.74 if count == 2 else 0.48, 2: 0.56}[len(rows)] if alone else {1: 0.55, 2: 0.5}[len(rows)]
    size, boxes = height * scale, []
    for row, n in enumerate(rows):
        for k in range(n):
            dx = (k - (n - 1) / 2) * size * rng.uniform(1.06, 1.16)
            dy = row * size * 1.08 + rng.uniform(-0.02, 0.02)
            boxes.append((x + dx if not alone else 0.5 + dx, foot - dy, size))
    return tuple(boxes)
