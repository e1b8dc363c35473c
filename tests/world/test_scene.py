"""Tests of scenes, their captions and their images."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from clipgen.errors import ClipgenError
from clipgen.world import drawings
from clipgen.world.art import find_package
from clipgen.world.concepts import PLACES, STYLES, concepts
from clipgen.world.contact_sheet import concept_sheet
from clipgen.world.grammar import NUMBERS, PLACE_PHRASES, STYLE_PHRASES, caption, captions, plain_caption
from clipgen.world.render import render
from clipgen.world.scene import COLOURLESS, OPPOSITE, Mix, Scene, Thing, sample_scene

SCENES = [sample_scene(seed, Mix(tier=2)) for seed in range(600)]


def test_a_seed_gives_one_scene() -> None:
    assert [sample_scene(seed, Mix(tier=2)) for seed in range(50)] == SCENES[:50]


def test_every_box_is_inside_the_image() -> None:
    for scene in SCENES:
        for thing in scene.things:
            for x, foot, height in thing.boxes:
                assert x - height / 2 >= 0
                assert x + height / 2 <= 1
                assert foot - height >= 0
                assert foot <= 1


def test_a_thing_has_one_box_per_copy() -> None:
    assert all(len(thing.boxes) == thing.count for scene in SCENES for thing in scene.things)


def test_only_recolourable_things_have_a_colour_and_only_in_coloured_styles() -> None:
    for scene in SCENES:
        for thing in scene.things:
            assert not thing.colour or (concepts()[thing.concept].hue(thing.art) and scene.style not in COLOURLESS)


def test_relations_hold_in_the_layout() -> None:
    for scene in SCENES:
        if scene.relation in ("left of", "right of", "above", "below"):
            (ax, ay), (bx, by) = (thing.centre for thing in scene.things)
            holds = {"left of": ax < bx, "right of": ax > bx, "above": ay < by, "below": ay > by}
            assert holds[scene.relation], scene


def test_captions_name_no_other_place_or_style() -> None:
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


def test_captions_of_a_scene_are_reproducible_and_without_gaps() -> None:
    for scene in SCENES[:100]:
        assert captions(scene, 3) == captions(scene, 3)
        assert all("  " not in text and ", ," not in text and text == text.strip(" ,") for text in captions(scene, 3))


def test_the_opposite_of_the_opposite_is_the_relation() -> None:
    assert all(OPPOSITE[OPPOSITE[relation]] == relation for relation in OPPOSITE if relation != "on top of")


def test_every_place_and_style_has_phrases() -> None:
    assert set(PLACE_PHRASES) == set(PLACES)
    assert set(STYLE_PHRASES) == set(STYLES)


def _drawings_are_missing() -> bool:
    try:
        find_package("flat")
    except ClipgenError:
        return True
    return False


needs_drawings = pytest.mark.skipif(_drawings_are_missing(), reason="The drawings are not installed")


def test_articles() -> None:
    captions_by_concept = {
        "fox": "a fox", "owl": "an owl", "unicorn": "a unicorn", "sun": "the sun", "statue of liberty":
        "the statue of liberty", "lightning": "lightning", "glasses": "glasses", "bread": "bread", "fish": "a fish",
    }  # fmt: skip
    for concept, text in captions_by_concept.items():
        thing = Thing(concept, "", 1, "", "", False, ())
        assert plain_caption(Scene(0, (thing,), "snow", "day", "picture book", "")) == f"{text} in snow"


@needs_drawings
@pytest.mark.parametrize("place", [*PLACES, "green"])
def test_rendering_is_reproducible(place: str) -> None:
    thing = Thing("fox", "🦊", 1, "", "", False, ((0.5, 0.9, 0.6),))
    scene = Scene(7, (thing,), place, "day", "picture book", "")
    first, second = np.asarray(render(scene, 64)), np.asarray(render(scene, 64))
    assert first.shape == (64, 64, 3)
    assert (first == second).all()
    assert first.std() > 10


@needs_drawings
@pytest.mark.parametrize("style", STYLES[1:])
def test_a_style_changes_the_image(style: str) -> None:
    scene = replace(SCENES[0], style="picture book")
    plain, styled = (np.asarray(render(s, 64), float) for s in (scene, replace(scene, style=style)))
    assert np.abs(plain - styled).mean() > 3


@needs_drawings
def test_recolouring_changes_the_dominant_hue() -> None:
    for colour in ("green", "blue", "purple"):
        hue = np.asarray(drawings.recoloured("🚗", colour, "flat").convert("RGB").convert("HSV"), float)
        coloured = hue[..., 0][(hue[..., 1] > 120) & (hue[..., 2] > 60)] / 255
        assert abs(np.median(coloured) - drawings.HUES[colour]) < 0.03


def test_the_plain_caption_names_every_thing_and_is_reproducible() -> None:
    for scene in SCENES[:300]:
        text = plain_caption(scene)
        assert text == plain_caption(scene)
        assert "  " not in text
        for thing in scene.things:
            concept = concepts()[thing.concept]
            assert (concept.name if thing.count == 1 else f"{concept.plural}") in text
            assert thing.count == 1 or NUMBERS[thing.count][0] in text
            assert thing.colour in text


@needs_drawings
def test_the_concept_sheet_has_one_cell_per_concept() -> None:
    some = list(concepts().values())[:5]
    sheet = concept_sheet(some, side=32, columns=3)
    assert sheet.width == 3 * (32 + 6) + 6
    assert sheet.height == 2 * (32 + 26 + 6) + 6
    cells = np.asarray(sheet)[6:38, 6:].reshape(32, 3, 38, 3)
    assert all(cells[:, k, :32].std() > 10 for k in range(3))
