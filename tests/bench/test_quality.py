"""The quality benchmark: all parts on storybook, metrics with known answers, and the error without the drawings."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from requirements import needs_drawings

from clipgen import load_clip
from clipgen.bench.quality import measure as bench
from clipgen.bench.quality import zero_shot
from clipgen.bench.quality.captions import caption_scores
from clipgen.bench.quality.edits import EDITS, caption_pair, wrong_captions
from clipgen.bench.quality.metrics import share
from clipgen.bench.quality.one_factor import area_under_curve
from clipgen.bench.quality.quadruples import _quadruples
from clipgen.bench.quality.retrieval import first_ranks
from clipgen.bench.quality.scene_encoder import SceneEncoder
from clipgen.bench.quality.zero_shot import accuracy, code_points
from clipgen.errors import ClipgenError, SettingsError
from clipgen.world import drawings
from clipgen.world.grammar import caption
from clipgen.world.parse import parse
from clipgen.world.scene import Mix
from clipgen.world.truth import is_true
from clipgen.world.unseen import unseen

MIX = Mix(tier=2)


class ConstantCaptioner:
    """Writes the same caption for every image."""

    kind = "constant"

    def caption(self, images: list[object]) -> list[str]:
        return ["a fox in snow"] * len(images)


@needs_drawings
def test_storybook_is_above_chance() -> None:
    lines: list[str] = []
    protocol, metrics = bench.measure(load_clip(), [ConstantCaptioner()], 8, on_progress=lines.append)
    by_name = {(metric.part, metric.name): metric for metric in metrics}
    assert lines[-1] == "5/5  captions, constant"
    assert len(by_name) == len(metrics)
    for key in (("places", "acc@1"), ("picture of a caption", "R@1"), ("one factor", "replace place")):
        assert by_name[key].value > 1.5 * (by_name[key].chance or 1)
    assert by_name["captions (constant)", "exact"].value == 0
    for name in ("nothing false", "thing F1"):
        assert by_name["captions (constant)", name].ceiling == 1
    report = json.loads(json.dumps(bench.report(protocol, metrics)))
    assert report["protocol"]["count"] == 8
    assert report["protocol"]["split"] == "dev"


def test_without_the_drawings_the_error_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPGEN_DRAWINGS", str(tmp_path))
    with pytest.raises(ClipgenError, match=r"'noto' were not found in '.*'\. To download them: .* npm pack @"):
        bench.measure(load_clip(), [], 8)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_makes_a_caption_false_in_its_own_wording(name: str) -> None:
    edit = EDITS[name]
    mix = Mix(tier=2, **edit.mix)
    pairs = [(scene, caption_pair(scene, edit, mix, random.Random(0))) for scene in islice(unseen(mix), 30)]
    applicable = [(scene, pair) for scene, pair in pairs if pair]
    assert applicable
    for scene, (true, false) in applicable:
        assert is_true(parse(true), scene)
        assert not is_true(parse(false), scene)


def test_wrong_captions_are_different_and_false() -> None:
    for scene in islice(unseen(MIX), 10):
        texts = wrong_captions(scene, 4, MIX)
        assert len(set(texts)) == 4
        assert not any(is_true(parse(text), scene) for text in texts)


def test_quadruples_have_the_same_words_and_each_caption_is_true_of_one_scene() -> None:
    for first, second, one, other in islice(_quadruples(Mix(tier=2, kinds=(0.0, 1.0, 0.0), several=0.0), "dev"), 5):
        assert sorted(one.replace(",", "").split()) == sorted(other.replace(",", "").split())
        assert [is_true(parse(text), scene) for scene in (first, second) for text in (one, other)] == [1, 0, 0, 1]


def test_captions_of_the_grammar_score_one() -> None:
    scenes = list(islice(unseen(MIX), 40))
    scores = caption_scores([parse(caption(scene, random.Random(scene.seed))) for scene in scenes], scenes)
    assert scores["thing F1"][0] == scores["attribute F1"][0] == scores["nothing false"][0] == scores["exact"][0] == 1
    assert scores["relation"][0] == 1


def test_known_answers() -> None:
    similarities = torch.tensor([[0.1, 0.5, 0.3], [0.9, 0.2, 0.2]])
    assert first_ranks(similarities, torch.tensor([[True, False, True], [False, True, True]])) == [2, 2]
    assert area_under_curve([1.0, 2.0], [0.0, 1.0]) == pytest.approx(0.875)
    [first, among, recall] = accuracy("", ["a", "b", "c"], [("a",), ("b",), ("b",)], torch.eye(3))
    assert (first.value, among.value, recall.value) == (pytest.approx(2 / 3), 1, 0.75)
    assert share("", "", [True] * 50 + [False] * 50).error == pytest.approx(0.096, abs=0.001)
    assert (code_points("🐻‍❄️"), code_points("🦊")) == ("1f43b-200d-2744", "1f98a")


@needs_drawings
def test_emoji_of_another_vendor_are_recognised_by_their_code_points(tmp_path: Path) -> None:
    for name in ("1F98A.png", "emoji_u1f431.png", "1f1e6.png", "notes.png"):
        image = Image.new("RGBA", (140, 140), "white")
        image.alpha_composite(drawings.drawing_image("🦊" if "98" in name else "🐱", "noto").resize((136, 136)))
        image.save(tmp_path / name)
    metrics = zero_shot.other_drawings(SceneEncoder(load_clip().encoder), tmp_path, MIX)
    assert [(metric.name, metric.count) for metric in metrics] == [("acc@1", 2), ("acc@5", 2), ("recall per class", 2)]
    (tmp_path / "none").mkdir()
    with pytest.raises(SettingsError, match=r"holds no emoji of the world, named such as '1f98a\.png'"):
        zero_shot.other_drawings(SceneEncoder(load_clip().encoder), tmp_path / "none", MIX)
