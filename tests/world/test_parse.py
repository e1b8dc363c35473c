"""Tests of parsing captions, of checking them against scenes, and of the unseen scenes."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pytest

from clipgen.world.concepts import COLOURS, SIZES, concepts
from clipgen.world.grammar import caption, indefinite
from clipgen.world.parse import ParsedCaption, ParsedThing, parse
from clipgen.world.scene import Mix, Scene, cells, held_out_cells, sample_scene
from clipgen.world.truth import is_true, relations
from clipgen.world.unseen import SPLITS, split_of, unseen

VARIED = Mix(tier=3, kinds=(0.3, 0.5, 0.2), several=0.5, coloured=0.5, styled=0.4, timed=0.5, sized=0.4)


def content_of(things: tuple[object, ...]) -> Counter[tuple[str, int, str, str]]:
    """Returns the multiset of (concept, count, colour, size) of scene things or parsed things."""
    return Counter((t.concept, t.count, t.colour, t.size) for t in things)  # type: ignore[attr-defined]


def has_relation_of(parsed: ParsedCaption, scene: Scene) -> bool:
    """Returns whether a caption names the relation of a scene, in one of the two directions, or rightly none."""
    if not scene.relation:
        return parsed.relation == ()
    return parsed.relation != () and parsed.relation in set(relations(scene))


def test_every_caption_is_parsed_and_true() -> None:
    for seed in range(400):
        scene = sample_scene(7_000_000 + seed, Mix(tier=3))
        text = caption(scene, random.Random(seed))
        parsed = parse(text)
        assert content_of(parsed.things) == content_of(scene.things), text
        assert is_true(parsed, scene), text


def test_a_complete_caption_names_the_whole_scene() -> None:
    for seed in range(2_000):
        scene = sample_scene(8_000_000 + seed, VARIED)
        text = caption(scene, random.Random(seed), complete=True)
        parsed = parse(text)
        assert content_of(parsed.things) == content_of(scene.things), text
        assert parsed.place == scene.place, text
        assert (parsed.time or "day") == scene.time, text
        assert (parsed.style or "picture book") == scene.style, text
        assert has_relation_of(parsed, scene), text
        assert not parsed.unknown, text


def test_other_captions_leave_details_out() -> None:
    scenes = [sample_scene(seed, VARIED) for seed in range(300)]
    parsed = [parse(caption(scene, random.Random(scene.seed))) for scene in scenes]
    assert any(not caption.place for caption in parsed)
    assert any(scene.relation and not caption.relation for scene, caption in zip(scenes, parsed, strict=True))


@pytest.mark.parametrize("colour", COLOURS)
def test_colour_and_size_are_parsed_before_every_name(colour: str) -> None:
    for concept in concepts().values():
        for name in (concept.name, *concept.synonyms) if concept.hues != ("", "") else ():
            for size in SIZES:
                text = f"{indefinite(size)} {colour} {name}"
                assert parse(text) == ParsedCaption((ParsedThing(concept.name, 1, colour, size),)), text


@pytest.mark.parametrize(
    "text, parsed",
    [
        ("An orange", ParsedCaption((ParsedThing("orange"),))),
        ("two orange foxes", ParsedCaption((ParsedThing("fox", 2, "orange"),))),
        ("an orange, sushi", ParsedCaption((ParsedThing("orange"), ParsedThing("sushi")))),
        ("a kitten at night", ParsedCaption((ParsedThing("cat"),), place="night sky")),
        ("a red fox", ParsedCaption((ParsedThing("fox", colour="red"),))),
        ("a cat in snow at night", ParsedCaption((ParsedThing("cat"),), place="snow", time="night")),
        ("a dog under the sea, neon", ParsedCaption((ParsedThing("dog"),), place="under the sea", style="neon")),
        (
            "a dog under a car",
            ParsedCaption((ParsedThing("dog"), ParsedThing("car")), relation=("dog", "below", "car")),
        ),
        ("fox, mountains", ParsedCaption((ParsedThing("fox"),), place="mountains")),
        ("a fox and four mountains", ParsedCaption((ParsedThing("fox"), ParsedThing("mountain", 4)))),
        ("fox, red background", ParsedCaption((ParsedThing("fox"),), place="red")),
        ("a fox zooming", ParsedCaption((ParsedThing("fox"),), unknown=("zooming",))),
        ("", ParsedCaption(())),
    ],
)
def test_content_of_a_caption(text: str, parsed: ParsedCaption) -> None:
    assert parse(text) == parsed


@pytest.mark.parametrize("split", SPLITS)
def test_unseen_scenes_belong_to_one_split_and_are_reproducible(split: str) -> None:
    scenes = list(islice(unseen(Mix(tier=2), split), 20))  # type: ignore[arg-type]
    assert scenes == list(islice(unseen(Mix(tier=2), split), 20))  # type: ignore[arg-type]
    assert all({split_of(cell) for cell in held_out_cells(scene)} == {split} for scene in scenes)
    assert all(set(held_out_cells(scene)) <= set(cells(scene)) for scene in scenes)
