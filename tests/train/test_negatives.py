"""What CLIP must tell apart: false captions are false and yet sayable, twins differ by what their captions say."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from clipgen.train.data import rendered
from clipgen.train.hard_batches import TWINS, HardBatches
from clipgen.train.labels import OPPOSITES, ROLES, label_index, labels_of, labels_told, sides_of, sides_told
from clipgen.train.negatives import edited, hard_pair
from clipgen.world.grammar import plain_caption
from clipgen.world.holdout import held_out
from clipgen.world.parse import parse
from clipgen.world.scene import OPPOSITE, Mix, cells, sample_scene
from clipgen.world.truth import is_true

TWO = Mix(tier=2, kinds=(0, 1, 0))
NAMES = TWO.names


@pytest.mark.parametrize("kinds", [(), ("swap",), ("count",)])
def test_a_false_caption_has_the_wording_of_the_true_one_and_tells_of_what_is_shown_elsewhere(
    kinds: tuple[str, ...],
) -> None:
    rng, found = random.Random(0), 0
    for seed in range(150):
        scene = sample_scene(seed, TWO)
        true, other = hard_pair(scene, rng, NAMES, kinds)
        assert is_true(parse(true), scene)
        if other:
            twin, false = other
            assert is_true(parse(false), twin)
            assert not is_true(parse(false), scene)
            assert abs(len(true.split()) - len(false.split())) <= 3
            assert not any(held_out(*cell) for cell in cells(twin))
            assert {thing.concept for thing in twin.things} <= set(NAMES)
            found += 1
    assert found > 80


def test_an_edit_stays_in_the_picture_and_changes_no_more_than_it_says() -> None:
    rng = random.Random(0)
    for seed in range(150):
        scene = sample_scene(seed, TWO)
        other = edited(scene, rng, NAMES, ("swap", "count"))
        assert other is not None
        assert (other.place, other.style, other.relation) == (scene.place, scene.style, scene.relation)
        assert {thing.concept for thing in other.things} == {thing.concept for thing in scene.things}
        for thing in other.things:
            assert len(thing.boxes) == thing.count
            assert all(x - h / 2 >= 0 and x + h / 2 <= 1 and y - h >= 0 and y <= 1 for x, y, h in thing.boxes)


def test_of_one_thing_there_is_nothing_to_swap() -> None:
    scene = sample_scene(0, Mix(tier=2, kinds=(1, 0, 0)))
    assert edited(scene, random.Random(0), NAMES, ("swap",)) is None
    assert hard_pair(scene, random.Random(0), NAMES, ("swap",))[1] is None


def test_twins_lie_in_one_batch_and_each_is_the_others_rival(tmp_path: Path) -> None:
    renders = rendered(tmp_path / "renders", 24, mix=TWO, size=32)
    rows = HardBatches(renders, 24, seed=0).draw(16)
    assert len(rows) == 16
    own = {scene.seed: scene for scene in map(renders.scene, range(24))}
    twins = [row for row in rows if row.scene != own[row.scene.seed]]
    assert len(twins) == 16 // TWINS
    for twin in twins:
        first = next(row for row in rows if row.scene == own[twin.scene.seed] and row.false is None)
        assert (first.picture - twin.picture).abs().max() > 0.2
        assert not is_true(parse(twin.true), first.scene)
        assert twin.false is None
    assert all(is_true(parse(row.true), row.scene) and row.picture.shape == (3, 32, 32) for row in rows)
    assert sum(row.false is not None for row in rows) > 5


def test_labels_tell_what_a_scene_shows() -> None:
    scene = sample_scene(3, TWO)
    true = {label for label, place in label_index().items() if labels_of(scene)[place]}
    assert {("thing", thing.concept) for thing in scene.things} <= true
    assert ("place", scene.place) in true
    assert ("style", scene.style) in true
    assert {kind for kind, _ in list(label_index())[labels_told() :]} == {"place", "style"}


def test_sides_tell_which_of_two_things_is_where_and_captions_tell_those_of_their_relation() -> None:
    met = set()
    for seed in range(60):
        scene = sample_scene(seed, TWO)
        a, b = (label_index()["thing", thing.concept] for thing in scene.things)
        sides = set(sides_of(scene))
        met.add(scene.relation)
        first, second = OPPOSITES.get(scene.relation, ("", ""))
        assert not first or {(ROLES.index(first), a, b), (ROLES.index(second), b, a)} <= sides
        assert all((role, other, one) not in sides for role, one, other in sides)
        for kind, one, other in scene.roles():
            place = label_index()["thing", one], label_index()["thing", other]
            assert (ROLES.index("left" if kind == "left" else "above"), *place) in sides
        assert set(sides_told(plain_caption(scene))) <= sides
    assert met == {*OPPOSITE, "next to"}
    assert [ROLES[side[0]] for side in sides_told("a fox on top of a bus in snow")] == ["above", "below"]
    assert sides_told("a fox and a bus in snow") == sides_told("a fox next to a bus") == []
