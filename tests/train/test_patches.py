"""What stands on a patch: the foremost thing that covers its middle, and at least one patch of everything."""

from __future__ import annotations

from dataclasses import replace

import torch

from clipgen.train.patches import PatchLabels, _owners
from clipgen.world.scene import Mix, Thing, sample_scene

SIDE = 8


def thing(name: str, *boxes: tuple[float, float, float]) -> Thing:
    return Thing(name, "x", len(boxes), "", "", False, boxes)


def test_a_thing_has_the_patches_whose_middles_it_covers() -> None:
    scene = replace(sample_scene(0), things=(thing("fox", (0.5, 0.75, 0.5)),))
    owners = _owners(scene, SIDE)
    assert sorted(owners) == [8 * row + column for row in (2, 3, 4, 5) for column in (2, 3, 4, 5)]
    assert set(owners.values()) == {0}


def test_what_is_in_front_hides_what_is_behind() -> None:
    scene = replace(sample_scene(0), things=(thing("fox", (0.5, 0.9, 0.4)), thing("cat", (0.5, 0.8, 0.4))))
    owners = _owners(scene, SIDE)
    assert owners[8 * 5 + 4] == 0  # the fox's foot is lower: it stands before the cat
    assert owners[8 * 3 + 4] == 1


def test_the_smallest_thing_has_a_patch_and_none_lies_outside() -> None:
    for seed in range(200):
        scene = sample_scene(seed, Mix(tier=2, kinds=(0.2, 0.3, 0.5), several=0.9))
        owners = _owners(scene, SIDE)
        assert set(owners) <= set(range(SIDE**2))
        assert set(owners.values()) <= set(range(len(scene.things)))
    assert list(_owners(replace(scene, things=(thing("fox", (0.99, 0.02, 0.01)),)), SIDE)) == [7]


def test_patches_learn_to_name_what_stands_on_them_and_what_stands_before_them_is_not_asked() -> None:
    torch.manual_seed(0)
    scenes = [sample_scene(seed, Mix(tier=1)) for seed in range(8)]
    states, told = torch.randn(8, 1 + SIDE**2, 32), PatchLabels(32)
    optimizer, losses = torch.optim.AdamW(told.parameters(), 1e-2), []
    for _ in range(120):
        loss, right = told(states, scenes)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert right > 0.9
    loss, right = told(states, scenes)
    states[:, 0] = 1e6  # the class token
    assert told(states, scenes) == (loss, right)
