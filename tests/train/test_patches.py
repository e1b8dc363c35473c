"""A patch shows the front thing that covers its centre; every thing has at least one patch."""

from __future__ import annotations

from dataclasses import replace

import torch

from clipgen.train.patches import PatchLabels, _visible_things
from clipgen.world.scene import Mix, Thing, sample_scene

SIDE = 8


def thing(name: str, *boxes: tuple[float, float, float]) -> Thing:
    return Thing(name, "x", len(boxes), "", "", False, boxes)


def test_a_thing_has_the_patches_whose_centres_it_covers() -> None:
    scene = replace(sample_scene(0), things=(thing("fox", (0.5, 0.75, 0.5)),))
    visible = _visible_things(scene, SIDE)
    assert sorted(visible) == [8 * row + column for row in (2, 3, 4, 5) for column in (2, 3, 4, 5)]
    assert set(visible.values()) == {0}


def test_a_front_thing_hides_the_one_behind() -> None:
    scene = replace(sample_scene(0), things=(thing("fox", (0.5, 0.9, 0.4)), thing("cat", (0.5, 0.8, 0.4))))
    visible = _visible_things(scene, SIDE)
    assert visible[8 * 5 + 4] == 0  # the fox's foot is lower, so it is in front of the cat
    assert visible[8 * 3 + 4] == 1


def test_the_smallest_thing_has_a_patch_and_no_patch_is_outside() -> None:
    for seed in range(200):
        scene = sample_scene(seed, Mix(tier=2, kinds=(0.2, 0.3, 0.5), several=0.9))
        visible = _visible_things(scene, SIDE)
        assert set(visible) <= set(range(SIDE**2))
        assert set(visible.values()) <= set(range(len(scene.things)))
    assert list(_visible_things(replace(scene, things=(thing("fox", (0.99, 0.02, 0.01)),)), SIDE)) == [7]


def test_the_head_learns_to_name_patches_and_ignores_the_class_token() -> None:
    torch.manual_seed(0)
    scenes = [sample_scene(seed, Mix(tier=1)) for seed in range(8)]
    states, head = torch.randn(8, 1 + SIDE**2, 32), PatchLabels(32)
    optimizer, losses = torch.optim.AdamW(head.parameters(), 1e-2), []
    for _ in range(120):
        loss, right = head(states, scenes)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert right > 0.9
    loss, right = head(states, scenes)
    states[:, 0] = 1e6  # the class token
    assert head(states, scenes) == (loss, right)
