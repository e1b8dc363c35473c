"""Asking CLIP from the page: what is asked of uploads, and a picture word by word."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from clipgen.ui import ask, words
from clipgen.ui.shelf import Shelf
from clipgen.ui.workshop import Answer, House, Picture, Workshop
from PIL import Image

from clipgen.errors import ClipgenError
from clipgen.settings.checks import SERVED


@pytest.fixture(scope="module")
def workshop(tiny_v: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(House((str(tiny_v),), SERVED, device="cpu", keep=False), Shelf(tmp_path_factory.mktemp("shelf")))


@pytest.fixture(scope="module")
def drawn(workshop: Workshop) -> Picture:
    settings = workshop.settings({"prompt": "a fox in snow", "seed": 3, "steps": 2})
    return next(event for event in workshop.draw(settings, "v") if isinstance(event, Picture))


def answer(workshop: Workshop, build: Any) -> Any:
    (said,) = (each for each in ask.asked(workshop, build, "v") if isinstance(each, Answer))
    return said.value


def test_a_score_of_an_upload(workshop: Workshop, drawn: Picture) -> None:
    found = answer(workshop, lambda: ask.score(workshop, {"path": str(drawn.shown)}, "a fox in snow"))
    assert drawn.result.clip is not None
    assert found.similarity == pytest.approx(drawn.result.clip.similarity, abs=0.01)


def test_labels_of_an_upload(workshop: Workshop, drawn: Picture) -> None:
    found = answer(workshop, lambda: ask.classify(workshop, {"path": str(drawn.shown)}, "fox, <b>owl</b>"))
    assert sum(guess.probability for guess in found) == pytest.approx(1)
    html = ask.labels_told(found)
    assert "&lt;b&gt;owl&lt;/b&gt;" in html
    assert "<b>owl" not in html


def test_pictures_are_ranked_and_keep_their_places(workshop: Workshop, drawn: Picture) -> None:
    other = workshop.shelf.place() / "black.png"
    Image.new("RGB", (64, 64)).save(other)
    files = [{"path": str(other)}, {"path": str(drawn.shown)}]
    found = answer(workshop, lambda: ask.rank(workshop, files, "a fox in snow"))
    assert sorted(each.index for each in found) == [0, 1]
    assert found[0].score.rank >= found[1].score.rank
    html = ask.ranks_told(found)
    assert html.count("<li>") == 2
    assert html.index("black.png") != html.index(drawn.shown.name)
    assert "&lt;b&gt;" in ask.caption_told("<b>owl")


def test_a_model_without_a_captioner_says_so(workshop: Workshop, drawn: Picture) -> None:
    (*_, said) = ask.asked(workshop, lambda: ask.caption(workshop, {"path": str(drawn.shown)}), "v")
    assert "brings no captioner. To train one: clipgen train captioner" in said


def test_its_own_picture_is_drawn_again_for_the_words(workshop: Workshop, drawn: Picture) -> None:
    found = answer(workshop, lambda: ask.replay(workshop, drawn.result.settings.to_dict()))
    assert (found.source, found.words) == ("cross-attention", ("a", "fox", "in", "snow"))
    html = words.told(found)
    assert len(re.findall("data-veil=", html)) == 4
    assert html.count('aria-pressed="true"') == 1
    assert "Where the model looked" in html


def test_strange_pictures_and_words_get_patches(workshop: Workshop, drawn: Picture) -> None:
    found = answer(workshop, lambda: ask.explain(workshop, {"path": str(drawn.shown)}, "an owl"))
    assert found.source == "patch similarity"
    html = words.told(found)
    assert "It did not draw this picture" in html


@pytest.mark.parametrize(
    "question, told",
    [
        (lambda w, f: ask.score(w, f, ""), "prompt must not be empty"),
        (lambda w, f: ask.score(w, f, ["fox"]), "prompt must be text"),
        (lambda w, f: ask.score(w, {"path": "/etc/passwd"}, "a fox"), "uploaded"),
        (lambda w, f: ask.classify(w, f, "fox"), "labels must be two or more"),
        (lambda w, f: ask.classify(w, f, ",".join(map(str, range(101)))), "labels must be at most 100"),
        (lambda w, f: ask.rank(w, [], "a fox"), "pictures must be a list of 1 to 16"),
        (lambda w, f: ask.rank(w, f, "a fox"), "pictures must be a list"),
        (lambda w, f: ask.rank(w, [f, "/etc/passwd"], "a fox"), "uploaded here"),
        (lambda w, f: ask.rank(w, [f] * 17, "a fox"), "pictures must be a list"),
        (lambda w, f: ask.caption(w, [f]), "must be uploaded"),
        (lambda w, f: ask.explain(w, None, "a fox"), "must be uploaded"),
        (lambda w, f: ask.explain(w, f, "x" * 3000), "at most 2,000 characters"),
    ],
)
def test_what_cannot_be_asked_is_said_in_words(workshop: Workshop, drawn: Picture, question: Any, told: str) -> None:
    with pytest.raises(ClipgenError, match=told):
        question(workshop, {"path": str(drawn.shown)})
    (said,) = ask.asked(workshop, lambda: question(workshop, {"path": str(drawn.shown)}), "v")
    assert told in said


def test_a_picture_without_settings_needs_words(workshop: Workshop, drawn: Picture) -> None:
    plain = Path(shutil.copy(drawn.shown, workshop.shelf.place() / "plain.png"))
    with Image.open(plain) as image:
        Image.new("RGB", image.size).save(plain)
    with pytest.raises(ClipgenError, match="No settings of a known app"):
        ask.explain(workshop, {"path": str(plain)}, "")


def test_an_explanation_is_json_too(workshop: Workshop, drawn: Picture) -> None:
    found = answer(workshop, lambda: ask.explain(workshop, {"path": str(drawn.shown)}, ""))
    assert json.loads(json.dumps(found.to_dict()))["words"][1]["word"] == "fox"
