"""What is held out is never learnt to be impossible: it leaves the sums that losses are normed by, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import CLIPTokenizer

from clipgen.models.find import BUNDLED
from clipgen.train.captioner import build_coca, writing_loss
from clipgen.train.labels import label_index, labels_of
from clipgen.train.withheld import Unsaid, names_withheld, never_together, withheld
from clipgen.train.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.train.world.grammar import plain_caption
from clipgen.train.world.holdout import held_out
from clipgen.train.world.scene import Mix, Scene, cells, sample_scene

MIX = Mix(tier=2)
NAMES = MIX.names
SCENES = [sample_scene(seed, MIX) for seed in range(60)]


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(BUNDLED["storybook"] / "tokenizer")


@pytest.fixture(scope="module")
def unsaid(tokenizer: CLIPTokenizer) -> Unsaid:
    return Unsaid(tokenizer, NAMES)


def is_shown(scene: Scene) -> bool:
    return not any(held_out(*cell) for cell in cells(scene))


def changes(scene: Scene) -> list[Scene]:
    """Every scene that differs from one in one word: another name, colour, number, place, style."""
    found = [replace(scene, place=place) for place in PLACES if not scene.is_plain]
    found += [replace(scene, style=style) for style in STYLES[1:] if scene.style != STYLES[0]]
    for k, thing in enumerate(scene.things):
        others = [replace(thing, concept=name) for name in NAMES if name not in {t.concept for t in scene.things}]
        others += [replace(thing, colour=colour) for colour in COLOURS if thing.colour]
        others += [replace(thing, count=count) for count in (2, 3, 4) if thing.count > 1]
        found += [replace(scene, things=(*scene.things[:k], other, *scene.things[k + 1 :])) for other in others]
    return found


def test_labels_of_a_cell_held_out_are_withheld_and_others_not() -> None:
    names = label_index()
    for scene in SCENES:
        labels = labels_of(scene)
        unseen = withheld(labels)
        assert not (unseen & labels.bool()).any()
        for name in NAMES:
            alone = held_out("scene", name, scene.place) and not scene.is_plain
            assert unseen[names["thing", name]] or not alone
        (first, *_) = (thing.concept for thing in scene.things)
        for colour in COLOURS:
            assert (
                unseen[names["colour", colour]]
                or labels[names["colour", colour]]
                or not held_out("colour", first, colour)
            )
    table = never_together()
    assert torch.equal(table, table.T)
    assert 0.05 < table[: len(names) - 30, : len(names) - 30].float().mean() < 0.12


def test_a_name_is_withheld_if_and_only_if_no_picture_can_show_it_there() -> None:
    for scene in SCENES:
        for k, thing in enumerate(scene.things):
            unseen = names_withheld(scene, thing)
            for name, never in zip(concepts(), unseen.tolist(), strict=True):
                if name not in {each.concept for each in scene.things}:
                    other = (*scene.things[:k], replace(thing, concept=name), *scene.things[k + 1 :])
                    assert never != is_shown(replace(scene, things=other)), (scene, name)


def test_a_caption_turns_to_what_is_withheld_at_one_token_and_to_all_else_freely(
    unsaid: Unsaid, tokenizer: CLIPTokenizer
) -> None:
    hit = 0
    for scene in SCENES:
        ids = tokenizer(plain_caption(scene)).input_ids[1:]
        barred = {(place, token) for _, place, token in unsaid.of([scene]).T.tolist()}
        assert not any((place, token) in barred for place, token in enumerate(ids))  # what is true counts
        for other in changes(scene):
            said = tokenizer(plain_caption(other)).input_ids[1:]
            turn = next((k for k, pair in enumerate(zip(ids, said, strict=False)) if pair[0] != pair[1]), None)
            if turn is None:
                continue
            if is_shown(other):
                assert (turn, said[turn]) not in barred, plain_caption(other)
            hit += (turn, said[turn]) in barred
    assert hit > 1000


def test_writing_is_not_taught_that_what_is_withheld_is_wrong(unsaid: Unsaid, tokenizer: CLIPTokenizer) -> None:
    torch.manual_seed(0)
    writer, scenes = build_coca(tokenizer, 8), SCENES[:6]
    states, texts, barred = torch.randn(6, 5, 8), [plain_caption(scene) for scene in scenes], unsaid.of(scenes)
    ids = tokenizer(texts, padding=True, return_tensors="pt").input_ids[:, 1:]
    logits: list[torch.Tensor] = []
    handle = writer.decoder.lm_head.register_forward_hook(
        lambda module, args, out: (out.retain_grad(), logits.append(out))[0]
    )
    loss = writing_loss(writer, states, texts, tokenizer, barred)
    loss.backward()
    handle.remove()
    (gradient,) = (each.grad for each in logits)
    assert gradient is not None
    assert (gradient[tuple(barred)] == 0).all()
    assert (gradient.gather(2, ids[..., None]) <= 0).all()
    assert loss < writing_loss(writer, states, texts, tokenizer)
