"""Scenes, captions and pictures of the world."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from clipgen.errors import ClipgenError
from clipgen.world import drawings
from clipgen.world.art import find_package
from clipgen.world.concepts import PLACES, STYLES, concepts
from clipgen.world.grammar import NUMBERS, PLACE_PHRASES, STYLE_PHRASES, caption, captions, plain_caption
from clipgen.world.scene import COLOURLESS, OPPOSITE, Mix, Scene, Thing, sample_scene

SCENES = [sample_scene(seed, Mix(tier=2)) for seed in range(600)]


def test_a_seed_gives_one_scene() -> None:
    assert [sample_scene(seed, Mix(tier=2)) for seed in range(50)] == SCENES[:50]


def test_every_thing_lies_inside_the_picture() -> None:
    for scene in SCENES:
        for thing in scene.things:
            for x, foot, height in thing.boxes:
                assert x - height / 2 >= 0
                assert x + height / 2 <= 1
                assert foot - height >= 0
                assert foot <= 1


def test_a_thing_has_as_many_boxes_as_it_counts() -> None:
    assert all(len(thing.boxes) == thing.count for scene in SCENES for thing in scene.things)


def test_only_dyeable_things_are_dyed_and_only_where_colours_show() -> None:
    for scene in SCENES:
        for thing in scene.things:
            assert not thing.colour or (concepts()[thing.concept].hue(thing.art) and scene.style not in COLOURLESS)


def test_relations_hold_in_the_layout() -> None:
    for scene in SCENES:
        if scene.relation in ("left of", "right of", "above", "below"):
            (ax, ay), (bx, by) = (thing.centre for thing in scene.things)
            holds = {"left of": ax < bx, "right of": ax > bx, "above": ay < by, "below": ay > by}
            assert holds[scene.relation], scene


def test_captions_say_nothing_that_is_not_in_the_scene() -> None:
    rng = random.Random(0)
    for scene in SCENES:
        text = caption(scene, rng)
        places = [
            p for p, phrases in PLACE_PHRASES.items() if p != scene.place and any(f" {x}" in text for x in phrases)
        ]
        allowed = {"night sky"} if scene.time == "night" else {"sunset"} if scene.time == "sunset" else set()
        assert not set(places) - allowed - {"beach", "outer space", "night sky", "table", "room"}, (text, scene)
        styles = [s for s, phrases in STYLE_PHRASES.items() if s != scene.style and any(x in text for x in phrases)]
        assert not set(styles) - {"neon"}, (text, scene)


def test_captions_of_a_scene_are_the_same_each_time_and_tidy() -> None:
    for scene in SCENES[:100]:
        assert captions(scene, 3) == captions(scene, 3)
        assert all("  " not in text and ", ," not in text and text == text.strip(" ,") for text in captions(scene, 3))


def test_swapping_a_relation_twice_changes_nothing() -> None:
    assert all(OPPOSITE[OPPOSITE[relation]] == relation for relation in OPPOSITE if relation != "on top of")


def test_every_place_and_style_has_its_words() -> None:
    assert set(PLACE_PHRASES) == set(PLACES)
    assert set(STYLE_PHRASES) == set(STYLES)


def _drawings_are_missing() -> bool:
    try:
        find_package("flat")
    except ClipgenError:
        return True
    return False


needs_drawings = pytest.mark.skipif(_drawings_are_missing(), reason="the drawings are not installed")


@needs_drawings
@pytest.mark.parametrize("place", [*PLACES, "green"])
def test_a_scene_is_painted_the_same_each_time(place: str) -> None:
    from clipgen.world.render import render

    thing = Thing("fox", "🦊", 1, "", "", False, ((0.5, 0.9, 0.6),))
    scene = Scene(7, (thing,), place, "day", "picture book", "")
    first, second = np.asarray(render(scene, 64)), np.asarray(render(scene, 64))
    assert first.shape == (64, 64, 3)
    assert (first == second).all()
    assert first.std() > 10


@needs_drawings
@pytest.mark.parametrize("style", STYLES[1:])
def test_a_style_changes_the_whole_picture(style: str) -> None:
    from clipgen.world.render import render

    scene = replace(SCENES[0], style="picture book")
    plain, styled = (np.asarray(render(s, 64), float) for s in (scene, replace(scene, style=style)))
    assert np.abs(plain - styled).mean() > 3


@needs_drawings
def test_dyeing_turns_the_dominant_hue() -> None:
    for colour in ("green", "blue", "purple"):
        hue = np.asarray(drawings.recoloured("🚗", colour, "flat").convert("RGB").convert("HSV"), float)
        coloured = hue[..., 0][(hue[..., 1] > 120) & (hue[..., 2] > 60)] / 255
        assert abs(np.median(coloured) - drawings.HUES[colour]) < 0.03


def test_the_plain_caption_names_all_there_is_and_is_always_the_same() -> None:
    for scene in SCENES[:300]:
        text = plain_caption(scene)
        assert text == plain_caption(scene)
        assert "  " not in text
        for thing in scene.things:
            concept = concepts()[thing.concept]
            assert (concept.name if thing.count == 1 else f"{concept.plural}") in text
            assert thing.count == 1 or NUMBERS[thing.count][0] in text
            assert thing.colour in text
