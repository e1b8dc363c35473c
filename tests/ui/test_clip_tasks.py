"""CLIP tasks on uploaded images: score, rank, caption, classify, explain, and the HTML of their results."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from clipgen.ui import clip_tasks
from clipgen.ui.html import clip_answers
from clipgen.ui.html.word_maps import word_maps
from clipgen.ui.job_events import FinishedImage, TaskResult
from clipgen.ui.tabs.shared import run_task
from clipgen.ui.worker import Worker
from PIL import Image

from clipgen.errors import ClipgenError


@pytest.fixture(scope="module")
def image(worker: Worker) -> FinishedImage:
    settings = worker.build_settings({"prompt": "a fox in snow", "seed": 3, "steps": 2})
    return next(event for event in worker.generate(settings, "session") if isinstance(event, FinishedImage))


@pytest.fixture(scope="module")
def upload(image: FinishedImage) -> dict[str, str]:
    return {"path": str(image.path)}


def result(worker: Worker, build_task: Any) -> Any:
    (event,) = (event for event in run_task(worker, build_task, "session") if isinstance(event, TaskResult))
    return event.value


def test_score(worker: Worker, image: FinishedImage, upload: dict[str, str]) -> None:
    score = result(worker, lambda: clip_tasks.score(worker, upload, "a fox in snow"))
    assert image.result.clip is not None
    assert score.similarity == pytest.approx(image.result.clip.similarity, abs=0.01)


def test_classify(worker: Worker, upload: dict[str, str]) -> None:
    guesses = result(worker, lambda: clip_tasks.classify(worker, upload, "fox, <b>owl</b>"))
    assert sum(guess.probability for guess in guesses) == pytest.approx(1)
    html = clip_answers.labels(guesses)
    assert "&lt;b&gt;owl&lt;/b&gt;" in html
    assert "<b>owl" not in html


def test_rank_returns_the_index_of_each_image(worker: Worker, upload: dict[str, str]) -> None:
    other = worker.image_store.new_folder() / "black.png"
    Image.new("RGB", (64, 64)).save(other)
    ranking = result(worker, lambda: clip_tasks.rank(worker, [{"path": str(other)}, upload], "a fox in snow"))
    assert sorted(each.index for each in ranking) == [0, 1]
    assert ranking[0].score.rank >= ranking[1].score.rank
    html = clip_answers.ranking(ranking)
    assert html.count("<li>") == 2
    assert "black.png" in html
    assert Path(upload["path"]).name in html


def test_a_caption_is_escaped() -> None:
    assert "&lt;b&gt;" in clip_answers.caption("<b>owl")


def test_a_model_without_a_captioner_raises_an_error(worker: Worker, upload: dict[str, str]) -> None:
    (*_, message) = run_task(worker, lambda: clip_tasks.caption(worker, upload), "session")
    assert "captioner. To train one: clipgen train captioner" in str(message)


def test_explain_generates_its_own_image_again(worker: Worker, image: FinishedImage) -> None:
    values = image.result.settings.to_dict()
    explanation = result(worker, lambda: clip_tasks.explain_settings(worker, values))
    assert (explanation.source, explanation.words) == ("cross-attention", ("a", "fox", "in", "snow"))
    html = word_maps(explanation)
    assert len(re.findall("data-mask=", html)) == 4
    assert html.count('aria-pressed="true"') == 1
    assert "cross-attention" in html


def test_explain_uses_patch_similarity_for_another_text(worker: Worker, upload: dict[str, str]) -> None:
    explanation = result(worker, lambda: clip_tasks.explain(worker, upload, "an owl"))
    assert explanation.source == "patch similarity"
    assert "This picture was not generated here" in word_maps(explanation)


@pytest.mark.parametrize(
    "build_task, message",
    [
        (lambda worker, file: clip_tasks.score(worker, file, ""), "prompt must not be empty"),
        (lambda worker, file: clip_tasks.score(worker, file, ["fox"]), "prompt must be text"),
        (lambda worker, file: clip_tasks.score(worker, {"path": "/etc/passwd"}, "a fox"), "uploaded"),
        (lambda worker, file: clip_tasks.classify(worker, file, "fox"), "labels must be two or more"),
        (
            lambda worker, file: clip_tasks.classify(worker, file, ",".join(map(str, range(101)))),
            "labels must be at most 100",
        ),
        (lambda worker, file: clip_tasks.rank(worker, [], "a fox"), "pictures must be a list of 1 to 16"),
        (lambda worker, file: clip_tasks.rank(worker, file, "a fox"), "pictures must be a list"),
        (lambda worker, file: clip_tasks.rank(worker, [file, "/etc/passwd"], "a fox"), "uploaded here"),
        (lambda worker, file: clip_tasks.rank(worker, [file] * 17, "a fox"), "pictures must be a list"),
        (lambda worker, file: clip_tasks.caption(worker, [file]), "must be uploaded"),
        (lambda worker, file: clip_tasks.explain(worker, None, "a fox"), "must be uploaded"),
        (lambda worker, file: clip_tasks.explain(worker, file, "x" * 3000), "at most 2,000 characters"),
    ],
)
def test_bad_arguments_raise_an_error(worker: Worker, upload: dict[str, str], build_task: Any, message: str) -> None:
    with pytest.raises(ClipgenError, match=message):
        build_task(worker, upload)
    (html,) = run_task(worker, lambda: build_task(worker, upload), "session")
    assert message in str(html)


def test_explain_needs_a_text_if_the_image_has_no_settings(worker: Worker, image: FinishedImage) -> None:
    plain = Path(shutil.copy(image.path, worker.image_store.new_folder() / "plain.png"))
    with Image.open(plain) as opened:
        Image.new("RGB", opened.size).save(plain)
    with pytest.raises(ClipgenError, match="No settings of a known app"):
        clip_tasks.explain(worker, {"path": str(plain)}, "")


def test_an_explanation_is_valid_json(worker: Worker, upload: dict[str, str]) -> None:
    explanation = result(worker, lambda: clip_tasks.explain(worker, upload, ""))
    assert json.loads(json.dumps(explanation.to_dict()))["words"][1]["word"] == "fox"
