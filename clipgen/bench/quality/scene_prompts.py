"""The prompts of SceneEval: nine categories, each with unseen combinations and with seen ones to compare them with.

The categories follow GenEval (Ghosh et al. 2023, arXiv 2310.11513). Every prompt has a scene that shows what it asks
for. An unseen prompt asks for a combination that is held out of all training (world/holdout.py), and for nothing else
that is. Its seen twin differs in that combination only. The same vocabulary always gives the same prompts.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from clipgen.bench.quality.edits import SIDES, swapped_things, with_thing
from clipgen.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.world.grammar import plain_caption
from clipgen.world.holdout import held_out, pair
from clipgen.world.scene import Mix, Scene, held_out_cells, sample_any_scene, with_count
from clipgen.world.unseen import FIRST_SEEDS, Split, split_of

ONE, TWO = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)  # shares of scenes with one, two and three kinds of things
PLAIN = {"several": 0.0, "coloured": 0.0, "styled": 0.0, "plain": 0.0, "timed": 0.0, "sized": 0.0}
FIRST_STREAM = 500_000_000  # after FIRST_SEEDS; the scenes before belong to the other parts of the benchmark
STREAM = 10_000_000  # scene seeds per category
MOST_PER_CELL = 3  # prompts of one held-out combination, in different places
ATTEMPTS = 5_000  # scenes per prompt after which a category has no more prompts

Kinds = tuple[str, ...]


@dataclass(frozen=True)
class Category:
    """One kind of prompt.

    Attributes:
        mix: Fields of the scene Mix.
        held_out: The kinds of held-out cells that an unseen scene contains, sorted: one of these tuples. Empty for a
            category without unseen prompts.
        vary: Changes a scene at random in what may be held out; returns None if it does not apply.
        fits: Whether a scene belongs to the category.
        place: Whether the prompt names the place.
        related: Whether the prompt says where the first thing is relative to the second.
        floor: The share of unseen prompts to reach, of seen ones without unseen prompts.
    """

    mix: Mapping[str, Any]
    held_out: tuple[Kinds, ...]
    vary: Callable[[Scene, random.Random, Mix], Scene | None]
    floor: float
    fits: Callable[[Scene], bool] = lambda scene: True
    place: bool = False
    related: bool = False


@dataclass(frozen=True)
class ScenePrompt:
    """One prompt.

    Attributes:
        id: Category, "u" for unseen or "s" for seen, and a number: "position-u-001".
        category: A key of CATEGORIES.
        seen: Whether all combinations of the prompt occur in training.
        scene: A scene that shows what is asked; the prompt names only the details that its category asks for.
        cells: The held-out cells; for a seen prompt those of its twin.
        seed: The seed of its image.
    """

    id: str
    category: str
    seen: bool
    scene: Scene
    cells: tuple[tuple[str, ...], ...]
    seed: int

    @property
    def asked(self) -> Scene:
        """The scene without the relation if the prompt does not name it."""
        return self.scene if CATEGORIES[self.category].related else replace(self.scene, relation="")

    def text(self, asked: Scene | None = None) -> str:
        """Returns the prompt, or the same words for a changed scene."""
        return plain_caption(asked or self.asked, place=CATEGORIES[self.category].place)


def _other_place(scene: Scene, rng: random.Random, mix: Mix) -> Scene:
    return replace(scene, place=rng.choice(PLACES))


def _other_style(scene: Scene, rng: random.Random, mix: Mix) -> Scene:
    return replace(scene, style=rng.choice(STYLES[1:]))


def _other_count(scene: Scene, rng: random.Random, mix: Mix) -> Scene:
    return replace(scene, things=(with_count(rng, scene.things[0], rng.choice((2, 3, 4)), 1),))


def _other_colour(scene: Scene, rng: random.Random, mix: Mix) -> Scene:
    return with_thing(scene, 0, colour=rng.choice(COLOURS))


def _other_second(scene: Scene, rng: random.Random, mix: Mix) -> Scene | None:
    name = rng.choice(mix.names)
    second, concept = scene.things[1], concepts()[name]
    if name == scene.things[0].concept or (second.colour and not concept.hue(second.art)):
        return None
    return with_thing(scene, 1, concept=name, drawing=concept.drawings[0])


def _other_combination(scene: Scene, rng: random.Random, mix: Mix) -> Scene | None:
    return _other_second(_other_colour(_other_place(scene, rng, mix), rng, mix), rng, mix)


def _first_is_coloured(scene: Scene) -> bool:
    return bool(scene.things[0].colour)


def _two_colours(scene: Scene) -> bool:
    a, b = scene.things
    return bool(a.colour and b.colour and a.colour != b.colour)


def _has_side(scene: Scene) -> bool:
    return scene.relation in SIDES


def _is_complex(scene: Scene) -> bool:
    return _has_side(scene) and _first_is_coloured(scene) and not scene.things[1].colour


CATEGORIES: dict[str, Category] = {
    "single_object": Category({**PLAIN, "kinds": ONE}, (), _other_place, 0.80),
    "scene": Category({**PLAIN, "kinds": ONE}, (("scene",),), _other_place, 0.80, place=True),
    "two_object": Category({**PLAIN, "kinds": TWO}, (("pair",),), _other_second, 0.55),
    "counting": Category({**PLAIN, "kinds": ONE, "several": 1.0}, (("count",),), _other_count, 0.60, place=True),
    "colors": Category(
        {**PLAIN, "kinds": ONE, "coloured": 1.0}, (("colour",),), _other_colour, 0.75, _first_is_coloured,
        place=True,
    ),
    "color_attr": Category({**PLAIN, "kinds": TWO, "coloured": 1.0}, (("pair",),), _other_second, 0.50, _two_colours),
    "position": Category({**PLAIN, "kinds": TWO}, (("role",),), swapped_things, 0.50, _has_side, related=True),
    "style": Category({**PLAIN, "kinds": ONE, "styled": 1.0}, (("style",),), _other_style, 0.80, place=True),
    "complex": Category(
        {**PLAIN, "kinds": TWO, "coloured": 0.5}, (("pair", "scene"), ("colour", "pair")), _other_combination, 0.25,
        _is_complex, place=True, related=True,
    ),
}  # fmt: skip
COMPOSITIONAL = ("two_object", "counting", "color_attr", "position", "complex")


def scene_prompts(category: str, number: int, split: Split, mix: Mix) -> list[ScenePrompt]:
    """Returns `number` unseen prompts of a category and their seen twins, in this order.

    A category without unseen prompts has `number` seen ones. There are fewer prompts if the vocabulary has too few
    held-out combinations.
    """
    unseen = list(islice(_scenes(category, split, mix, number * ATTEMPTS), number))
    if not CATEGORIES[category].held_out:
        return [_prompt(category, k, True, scene, (), split) for k, scene in enumerate(unseen)]
    cells = [tuple(held_out_cells(scene)) for scene in unseen]
    twins = [_twin(category, scene, mix) for scene in unseen]
    return [
        _prompt(category, k, seen, scene, cells[k], split)
        for seen, each in ((False, unseen), (True, twins))
        for k, scene in enumerate(each)
    ]


def _prompt(category: str, k: int, seen: bool, scene: Scene, cells: tuple[Kinds, ...], split: Split) -> ScenePrompt:
    name = f"{category}-{'s' if seen else 'u'}-{k + 1:03d}"
    return ScenePrompt(name, category, seen, scene, cells, noise_seed(split, name))


def noise_seed(split: Split, name: str) -> int:
    """Returns the seed of the image of a prompt: the first 4 bytes of the SHA-256 of its id and split."""
    digest = hashlib.sha256("\x1f".join(("clipgen-noise-v1", split, name)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _scenes(category: str, split: Split, mix: Mix, attempts: int) -> Iterator[Scene]:
    """Yields different scenes of a category with its held-out cells, of one split, at most three per combination."""
    start = FIRST_SEEDS[split] + FIRST_STREAM + STREAM * list(CATEGORIES).index(category)
    spec = CATEGORIES[category]
    fields = replace(mix, **spec.mix)
    used: Counter[tuple[Kinds, ...]] = Counter()
    texts = set[str]()
    for seed in range(start, start + attempts):
        rng = random.Random(seed)
        scene = sample_any_scene(rng, seed, fields)
        if not spec.fits(scene):
            continue
        if any("pair" in kinds for kinds in spec.held_out):
            scene = _with_unseen_pair(scene, rng, split, mix)
        held = tuple(held_out_cells(scene))
        is_unseen = tuple(sorted(cell[0] for cell in held)) in (spec.held_out or ((),))
        if not is_unseen or any(split_of(cell) != split for cell in held):
            continue
        text = ScenePrompt("", category, False, scene, (), 0).text()
        if text not in texts and (not held or used[held] < MOST_PER_CELL):
            texts.add(text)
            used[held] += 1
            yield scene


def _with_unseen_pair(scene: Scene, rng: random.Random, split: Split, mix: Mix) -> Scene:
    """Returns a scene whose second concept forms a held-out pair with the first, so that few scenes are discarded."""
    first, second = scene.things[0].concept, scene.things[1]
    names = [name for name in mix.names if name != first and (not second.colour or concepts()[name].hue(second.art))]
    pairs = {name: pair(first, name) for name in names}
    unseen = [name for name, cell in pairs.items() if held_out(*cell) and split_of(cell) == split]
    if not unseen:
        return scene
    name = rng.choice(unseen)
    return with_thing(scene, 1, concept=name, drawing=concepts()[name].drawings[0])


def _twin(category: str, scene: Scene, mix: Mix) -> Scene:
    """Returns a scene without held-out cells that differs in the combination only, or as little as possible."""
    rng, spec = random.Random(scene.seed), CATEGORIES[category]
    while True:
        twin = spec.vary(scene, rng, mix)
        if twin is not None and spec.fits(twin) and not held_out_cells(twin):
            return twin
