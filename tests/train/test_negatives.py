"""False captions are false of their scene and true of others; twins differ as their captions say; labels are exact."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from clipgen.train.data import Renders
from clipgen.train.hard_batches import TWIN_SHARE, HardBatches
from clipgen.train.labels import (
    OPPOSITES,
    ROLES,
    caption_label_count,
    caption_roles,
    label_index,
    scene_labels,
    scene_roles,
)
from clipgen.train.negatives import edited, hard_pair
from clipgen.train.render_file import RenderFile
from clipgen.world.grammar import plain_caption
from clipgen.world.holdout import held_out
from clipgen.world.parse import parse
from clipgen.world.scene import OPPOSITE, Mix, cells, sample_scene
from clipgen.world.truth import is_true

TWO = Mix(tier=2, kinds=(0, 1, 0))
NAMES = TWO.names


@pytest.mark.parametrize("kinds", [(), ("swap",), ("count",)])
def test_a_false_caption_has_the_wording_of_the_true_one_and_describes_an_allowed_scene(
    kinds: tuple[str, ...],
) -> None:
    rng, edits = random.Random(0), 0
    for seed in range(150):
        scene = sample_scene(seed, TWO)
        true, edit = hard_pair(scene, rng, NAMES, kinds)
        assert is_true(parse(true), scene)
        if edit:
            twin, false = edit
            assert is_true(parse(false), twin)
            assert not is_true(parse(false), scene)
            assert abs(len(true.split()) - len(false.split())) <= 3
            assert not any(held_out(*cell) for cell in cells(twin))
            assert {thing.concept for thing in twin.things} <= set(NAMES)
            edits += 1
    assert edits > 80


def test_an_edit_keeps_things_inside_the_image_and_the_surroundings_unchanged() -> None:
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


def test_a_scene_with_one_thing_has_nothing_to_swap() -> None:
    scene = sample_scene(0, Mix(tier=2, kinds=(1, 0, 0)))
    assert edited(scene, random.Random(0), NAMES, ("swap",)) is None
    assert hard_pair(scene, random.Random(0), NAMES, ("swap",))[1] is None


def test_twins_are_in_one_batch_and_their_captions_contradict(tmp_path: Path) -> None:
    file = RenderFile(tmp_path / "renders", mix=TWO, size=32)
    file.fill(24)
    renders = Renders.open(file, 24)
    rows = HardBatches(renders, 24, seed=0).draw(16)
    assert len(rows) == 16
    own = {scene.seed: scene for scene in map(renders.scene, range(24))}
    twins = [row for row in rows if row.scene != own[row.scene.seed]]
    assert len(twins) == 16 // TWIN_SHARE
    for twin in twins:
        first = next(row for row in rows if row.scene == own[twin.scene.seed] and row.false is None)
        assert (first.image - twin.image).abs().max() > 0.2
        assert not is_true(parse(twin.true), first.scene)
        assert twin.false is None
    assert all(is_true(parse(row.true), row.scene) and row.image.shape == (3, 32, 32) for row in rows)
    assert sum(row.false is not None for row in rows) > 5


def test_labels_are_those_of_the_scene() -> None:
    scene = sample_scene(3, TWO)
    true = {label for label, place in label_index().items() if scene_labels(scene)[place]}
    assert {("thing", thing.concept) for thing in scene.things} <= true
    assert ("place", scene.place) in true
    assert ("style", scene.style) in true
    assert {kind for kind, _ in list(label_index())[caption_label_count() :]} == {"place", "style"}


def test_roles_follow_the_layout_and_captions_have_those_of_their_relation() -> None:
    relations = set()
    for seed in range(60):
        scene = sample_scene(seed, TWO)
        a, b = (label_index()["thing", thing.concept] for thing in scene.things)
        roles = set(scene_roles(scene))
        relations.add(scene.relation)
        first, second = OPPOSITES.get(scene.relation, ("", ""))
        assert not first or {(ROLES.index(first), a, b), (ROLES.index(second), b, a)} <= roles
        assert all((role, other, one) not in roles for role, one, other in roles)
        for kind, one, other in scene.roles():
            place = label_index()["thing", one], label_index()["thing", other]
            assert (ROLES.index("left" if kind == "left" else "above"), *place) in roles
        assert set(caption_roles(plain_caption(scene))) <= roles
    assert relations == {*OPPOSITE, "next to"}
    assert [ROLES[role[0]] for role in caption_roles("a fox on top of a bus in snow")] == ["above", "below"]
    assert caption_roles("a fox and a bus in snow") == caption_roles("a fox next to a bus") == []
