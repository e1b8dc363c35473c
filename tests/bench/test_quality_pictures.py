"""The picture benchmark: its prompts and questions, known answers, and a small run of every part on storybook."""

from __future__ import annotations

from itertools import chain

import pytest
from requirements import needs_drawings

from clipgen.bench.gain import VARIANTS, GainRow, at_equal_time
from clipgen.bench.quality.named import NamedConcept, Namer, by_concept, by_seeds_right, named_metrics
from clipgen.bench.quality.questions import Questions, wrong_prompts
from clipgen.bench.quality.round_trip import single_scenes
from clipgen.bench.quality.scene_encoder import SceneEncoder
from clipgen.bench.quality.scene_eval import passes
from clipgen.bench.quality.scene_prompts import CATEGORIES, noise_seed, scene_prompts
from clipgen.gallery import load_clip
from clipgen.pixels import to_pixels
from clipgen.world.holdout import held_out
from clipgen.world.parse import parse
from clipgen.world.render import render
from clipgen.world.scene import Mix, held_out_cells
from clipgen.world.truth import is_true
from clipgen.world.unseen import split_of

MIX = Mix(tier=2)


@pytest.mark.parametrize("category", CATEGORIES)
def test_unseen_prompts_ask_for_held_out_combinations_and_their_twins_do_not(category: str) -> None:
    prompts = {split: scene_prompts(category, 3, split, MIX) for split in ("dev", "test")}
    assert prompts["dev"] == scene_prompts(category, 3, "dev", MIX)
    for split, each in prompts.items():
        for prompt in each:
            kinds = tuple(sorted(cell[0] for cell in held_out_cells(prompt.scene)))
            assert kinds in CATEGORIES[category].held_out if not prompt.seen else kinds == ()
            assert all(held_out(*cell) and split_of(cell) == split for cell in prompt.cells)
            assert is_true(parse(prompt.text()), prompt.scene)
    texts = [prompt.text() for prompt in chain(*prompts.values()) if not prompt.seen]
    seeds = {prompt.seed for prompt in chain(*prompts.values())}
    assert len(set(texts)) == len(texts)
    assert len(seeds) == len(prompts["dev"]) + len(prompts["test"])


@pytest.mark.parametrize("category", CATEGORIES)
def test_wrong_prompts_are_wrong_or_leave_something_out(category: str) -> None:
    for prompt in scene_prompts(category, 2, "dev", MIX):
        right = parse(prompt.text())
        for texts in wrong_prompts(prompt, MIX.names).values():
            for text in texts:
                wrong = parse(text)
                leaves_out = len(wrong.things) < len(right.things) or (right.style and not wrong.style)
                assert leaves_out or not is_true(wrong, prompt.scene), text


@needs_drawings
def test_clip_names_true_renders_and_answers_questions_about_them() -> None:
    encoder = load_clip().encoder
    names = MIX.names[:12]
    namer = Namer([encoder], names)
    chosen = [namer(to_pixels(render(scene, encoder.image_size))) for scene in single_scenes(names, "noto")]
    assert sum(choice == (name,) for choice, name in zip(chosen, names, strict=True)) >= 9
    prompts = scene_prompts("scene", 6, "dev", MIX)
    features = SceneEncoder(encoder).scene_features([prompt.scene for prompt in prompts])
    questions = [Questions(encoder, prompt.text(), wrong_prompts(prompt, MIX.names)) for prompt in prompts]
    right = [each.answers(image)["place"] for each, image in zip(questions, features, strict=True)]
    wrong = [each.answers(image)["place"] for each, image in zip(questions, features.flip(0), strict=True)]
    assert sum(right) > sum(wrong)


def test_known_answers() -> None:
    assert noise_seed("test", "position-u-001") == 736024727
    chosen = [("fox", "fox"), ("fox", "cat"), ("cat", "cat"), ("cat", "cat")]
    named = by_concept(["fox", "cat"], chosen, 2)
    assert named[0] == NamedConcept("fox", ("fox", "fox"), ("fox", "cat"))
    assert by_seeds_right(named) == {1: ["fox"], 2: ["cat"]}
    assert [metric.value for metric in named_metrics(named)] == [0.75, 1, 0.75, 0.5]
    assert passes([{"thing": True}, {"thing": True}])
    assert not passes([{"thing": True}, {"thing": False}])
    assert not passes([])


def test_variants_at_equal_time_have_steps_by_their_cost() -> None:
    rows = [GainRow(name, 1.0 if name == "off" else 4.0, *[0.0] * 9) for name in VARIANTS]
    variants = at_equal_time(rows, 2.0)
    assert variants["off"] == {"steps": 2.0}
    assert variants["clip"] == {"guidance": "clip", "steps": 0.5}
    assert "more steps" not in variants
