"""Tests of the held-out cells: known values, their share, and scenes that contain none."""

from __future__ import annotations

import pytest

from clipgen.world.concepts import COLOURS, STYLES, concepts
from clipgen.world.holdout import held_out, pair, u
from clipgen.world.scene import Mix, held_out_cells, sample_scene

NUMBERS = {
    ("pair", "cat", "rabbit"): 0.051386, ("scene", "fox", "beach"): 0.007790, ("colour", "penguin", "red"): 0.045787,
    ("count", "lion", "4"): 0.006305, ("role", "left", "fox", "rabbit"): 0.088748,
    ("style", "cat", "pixel art"): 0.030344,
    ("pair", "cat", "fox"): 0.572882, ("scene", "fox", "snow"): 0.695693, ("role", "left", "rabbit", "fox"): 0.824403,
}  # fmt: skip


@pytest.mark.parametrize(("key", "number"), NUMBERS.items())
def test_known_numbers(key: tuple[str, ...], number: float) -> None:
    assert u(*key) == pytest.approx(number, abs=1e-6)
    assert held_out(*key) == (number < 0.10)


def test_every_role_is_trained_in_at_least_one_direction() -> None:
    names = list(concepts())[:60]
    roles = [("left", a, b) for a in names for b in names if a != b]
    assert not any(held_out("role", d, a, b) and held_out("role", d, b, a) for d, a, b in roles)
    share = sum(held_out("role", *role) for role in roles) / len(roles)
    assert share == pytest.approx(0.095, abs=0.02)


def test_a_tenth_of_the_colours_and_styles_is_held_out() -> None:
    names = list(concepts())
    keys = [("colour", name, colour) for name in names for colour in COLOURS]
    keys += [("style", name, style) for name in names for style in STYLES[1:]]
    share = sum(held_out(*key) for key in keys) / len(keys)
    assert share == pytest.approx(0.10, abs=4 * (0.09 / len(keys)) ** 0.5)


def test_pairs_are_in_code_point_order() -> None:
    assert pair("fox", "cat") == pair("cat", "fox") == ("pair", "cat", "fox")


@pytest.mark.parametrize("mix", [Mix(), Mix(tier=2), Mix(tier=1, kinds=(0, 0.5, 0.5), several=1.0)])
def test_no_scene_contains_a_held_out_cell(mix: Mix) -> None:
    for seed in range(7_000):
        assert not held_out_cells(sample_scene(seed, mix))
