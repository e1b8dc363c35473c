"""The quality benchmark: its parts on storybook, its known answers, and what it says without the font."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from requirements import needs_drawings

from clipgen import Pipeline, load_clip
from clipgen.bench.quality import measure as bench
from clipgen.bench.quality import zero_shot
from clipgen.bench.quality.captions import measured
from clipgen.bench.quality.edits import EDITS, pair_of, wrong_captions
from clipgen.bench.quality.eye import Eye
from clipgen.bench.quality.figures import share
from clipgen.bench.quality.one_factor import area
from clipgen.bench.quality.pictures import KINDS, Drawing, passes, pictures
from clipgen.bench.quality.quadruples import _quadruples
from clipgen.bench.quality.retrieval import ranks
from clipgen.bench.quality.zero_shot import code_points, naming
from clipgen.errors import ClipgenError, SettingsError
from clipgen.models.find import BUNDLED
from clipgen.world import drawings
from clipgen.world.grammar import caption
from clipgen.world.parse import parse
from clipgen.world.scene import Mix
from clipgen.world.truth import is_true
from clipgen.world.unseen import unseen

MIX = Mix(tier=2)


class Blind:
    """Says the same of every picture."""

    kind = "blind"

    def write(self, pictures: list[object]) -> list[str]:
        return ["a fox in snow"] * len(pictures)


@needs_drawings
def test_storybook_is_above_chance_in_what_it_was_trained_for() -> None:
    told: list[str] = []
    facts, figures = bench.measure(load_clip(), [Blind()], 8, say=told.append)
    found = {(figure.part, figure.name): figure for figure in figures}
    assert told[-1] == "5/5  captions, blind"
    assert len(found) == len(figures)
    for key in (("places", "acc@1"), ("picture of a caption", "R@1"), ("one factor", "replace place")):
        assert found[key].value > 1.5 * (found[key].chance or 1)
    assert found["captions (blind)", "exact"].value == 0
    assert (found["captions (blind)", "nothing false"].ceiling, found["captions (blind)", "thing F1"].ceiling) == (1, 1)
    report = json.loads(json.dumps(bench.report(facts, figures)))
    assert report["protocol"]["count"] == 8
    assert report["protocol"]["split"] == "dev"


def test_without_the_drawings_it_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPGEN_DRAWINGS", str(tmp_path))
    with pytest.raises(ClipgenError, match=r"Drawings 'noto' not found in '.*'\. To fetch them: .* npm pack @"):
        bench.measure(load_clip(), [], 8)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_makes_a_caption_false_in_its_own_wording(name: str) -> None:
    edit = EDITS[name]
    mix = Mix(tier=2, **edit.mix)
    pairs = [(scene, pair_of(scene, edit, mix, random.Random(0))) for scene in islice(unseen(mix), 30)]
    found = [(scene, pair) for scene, pair in pairs if pair]
    assert found
    for scene, (true, false) in found:
        assert is_true(parse(true), scene)
        assert not is_true(parse(false), scene)


def test_wrong_captions_differ_and_are_wrong() -> None:
    for scene in islice(unseen(MIX), 10):
        texts = wrong_captions(scene, 4, MIX)
        assert len(set(texts)) == 4
        assert not any(is_true(parse(text), scene) for text in texts)


def test_quadruples_have_the_same_words_and_one_truth_each() -> None:
    for first, second, one, other in islice(_quadruples(Mix(tier=2, kinds=(0.0, 1.0, 0.0), several=0.0), "dev"), 5):
        assert sorted(one.replace(",", "").split()) == sorted(other.replace(",", "").split())
        assert [is_true(parse(text), scene) for scene in (first, second) for text in (one, other)] == [1, 0, 0, 1]


def test_the_grammars_own_captions_name_all_things_and_nothing_false() -> None:
    scenes = list(islice(unseen(MIX), 40))
    found = measured([parse(caption(scene, random.Random(scene.seed))) for scene in scenes], scenes)
    assert found["thing F1"][0] == found["attribute F1"][0] == found["nothing false"][0] == found["exact"][0] == 1
    assert found["relation"][0] == 1


def test_known_answers() -> None:
    cosines = torch.tensor([[0.1, 0.5, 0.3], [0.9, 0.2, 0.2]])
    assert ranks(cosines, torch.tensor([[True, False, True], [False, True, True]])) == [2, 2]
    assert area([1.0, 2.0], [0.0, 1.0]) == pytest.approx(0.875)
    [first, among, recall] = naming("", ["a", "b", "c"], [("a",), ("b",), ("b",)], torch.eye(3))
    assert (first.value, among.value, recall.value) == (pytest.approx(2 / 3), 1, 0.75)
    assert share("", "", [True] * 50 + [False] * 50).error == pytest.approx(0.096, abs=0.001)
    assert (code_points("🐻‍❄️"), code_points("🦊")) == ("1f43b-200d-2744", "1f98a")


@needs_drawings
def test_pictures_are_drawn_and_judged(tiny_v: Path) -> None:
    pipe = Pipeline.from_pretrained(str(tiny_v))
    pipe.defaults |= {"steps": 4}
    figures = pictures(Drawing(pipe, load_clip(str(BUNDLED["storybook"] / "judge")), 3), MIX, "dev")
    assert [figure.name for figure in figures] == [*KINDS, "mean of the kinds"]
    assert all(figure.count == 3 and figure.chance == 0.2 for figure in figures[:-1])
    assert sum(figure.ceiling or 0 for figure in figures) > sum(figure.value for figure in figures[:-1])


def test_a_picture_passes_that_is_closest_to_its_own_text() -> None:
    judge = Eye(load_clip().encoder)
    texts, wrong = ["a fox in snow", "an owl at night"], [["a car in snow"], ["an owl on a beach", "a fox at night"]]
    assert passes(judge, judge.texts(texts), texts, wrong) == [True, True]
    assert passes(judge, judge.texts(["a car in snow", "a fox at night"]), texts, wrong) == [False, False]


@needs_drawings
def test_emoji_of_another_vendor_are_found_by_their_code_points(tmp_path: Path) -> None:
    for name in ("1F98A.png", "emoji_u1f431.png", "1f1e6.png", "notes.png"):
        picture = Image.new("RGBA", (140, 140), "white")
        picture.alpha_composite(drawings.drawing_image("🦊" if "98" in name else "🐱", "noto").resize((136, 136)))
        picture.save(tmp_path / name)
    figures = zero_shot.drawings(Eye(load_clip().encoder), tmp_path, MIX)
    assert [(figure.name, figure.count) for figure in figures] == [("acc@1", 2), ("acc@5", 2), ("recall per class", 2)]
    (tmp_path / "none").mkdir()
    with pytest.raises(SettingsError, match=r"holds no emoji of the world, named such as '1f98a\.png'"):
        zero_shot.drawings(Eye(load_clip().encoder), tmp_path / "none", MIX)
