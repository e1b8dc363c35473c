"""The way back from captions to what they say, what of it is true, and what unseen scenes are."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pytest

from clipgen.world.grammar import caption
from clipgen.world.parse import ParsedCaption, ParsedThing, parse
from clipgen.world.scene import Mix, cells, sample_scene
from clipgen.world.truth import is_true
from clipgen.world.unseen import SPLITS, held_out_cells, split_of, unseen


def test_every_caption_is_read_back_and_true() -> None:
    for seed in range(400):
        scene = sample_scene(7_000_000 + seed, Mix(tier=3))
        text = caption(scene, random.Random(seed))
        said = parse(text)
        shown = Counter((t.concept, t.count, t.colour, t.size) for t in scene.things)
        assert Counter((t.concept, t.count, t.colour, t.size) for t in said.things) == shown, text
        assert is_true(said, scene), text


@pytest.mark.parametrize(
    "text, said",
    [
        ("An orange", ParsedCaption((ParsedThing("orange"),))),
        ("two orange foxes", ParsedCaption((ParsedThing("fox", 2, "orange"),))),
        ("a kitten at night", ParsedCaption((ParsedThing("cat"),), place="night sky")),
        ("a cat in snow at night", ParsedCaption((ParsedThing("cat"),), place="snow", time="night")),
        ("a dog under the sea, neon", ParsedCaption((ParsedThing("dog"),), place="under the sea", style="neon")),
        (
            "a dog under a car",
            ParsedCaption((ParsedThing("dog"), ParsedThing("car")), relation=("dog", "below", "car")),
        ),
        ("fox, red background", ParsedCaption((ParsedThing("fox"),), place="red")),
        ("a fox zooming", ParsedCaption((ParsedThing("fox"),), unknown=("zooming",))),
        ("", ParsedCaption(())),
    ],
)
def test_what_a_caption_says(text: str, said: ParsedCaption) -> None:
    assert parse(text) == said


@pytest.mark.parametrize("split", SPLITS)
def test_unseen_scenes_are_of_one_split_and_always_the_same(split: str) -> None:
    scenes = list(islice(unseen(Mix(tier=2), split), 20))  # type: ignore[arg-type]
    assert scenes == list(islice(unseen(Mix(tier=2), split), 20))  # type: ignore[arg-type]
    assert all({split_of(cell) for cell in held_out_cells(scene)} == {split} for scene in scenes)
    assert all(set(held_out_cells(scene)) <= set(cells(scene)) for scene in scenes)
