"""What a page shows of a job: every text escaped, scores in words, curves drawn."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from clipgen.ui import stage
from clipgen.ui.curve import Fit, curve
from clipgen.ui.stage import Card

from clipgen.settings.settings import Note, Settings

EVIL = "<img src=x onerror=alert(1)>\"'<script>alert(2)</script>&amp;"
CLIP = {
    "model": "storybook",
    "similarity": 0.3,
    "score": 0.75,
    "percentile": 97.4,
    "captions": 988,
    "self_graded": False,
}


class Tags(HTMLParser):
    """Collects the tags and the texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def card(prompt: str = "a fox", **changes: object) -> Card:
    values = {**Settings(prompt, seed=3, steps=20, width=128, height=128).to_dict()}
    return Card(
        **{"path": f"/tmp/{prompt[:9]}.png", "settings": values, "seed": 3, "seconds": 1.25, "clip": CLIP, **changes}
    )


@pytest.mark.parametrize(
    "html",
    [
        stage.finished(card(EVIL, notes=(Note("x", None, EVIL),))),
        stage.message(EVIL),
        stage.table([(EVIL, EVIL)]),
        stage.loading(EVIL, 1),
        stage.drawing("data:,", 1, 20, None, "", EVIL),
        stage.facts(card(clip={**CLIP, "model": EVIL})),
        stage.notes([Note("x", None, EVIL)]),
    ],
)
def test_markup_in_texts_stays_text(html: str) -> None:
    page = Tags(html)
    assert not {"script", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert [value for name, value in page.attributes if name == "src" and value == "x"] == []
    assert EVIL in page.text + "".join(value or "" for _, value in page.attributes)


def test_a_score_is_a_percentile_in_words() -> None:
    assert "better than 97 % of 988 other captionsgood" in Tags(stage.score(CLIP)).text
    assert "self-graded" in stage.score({**CLIP, "self_graded": True})
    assert "Not calibrated" in stage.score({**CLIP, "percentile": None})
    assert "no CLIP" in stage.score(None)


def test_facts_name_seed_seconds_and_size() -> None:
    text = Tags(stage.facts(card(), "2 of 4")).text
    assert all(fact in text for fact in ("seed3", "time1.2 s", "steps20", "128 × 128", "2 of 4"))


def test_a_curve_has_its_twin_dashed_beside_it() -> None:
    drawn = curve([Fit(0, 0.1, 10.0), Fit(9, 0.3, 97.4)], 10, twin=[Fit(0, 0.1, 10.0), Fit(9, 0.2, 40.0)])
    assert drawn.count("polyline") == 2
    assert 'class="twin"' in drawn
    assert 'aria-label="Similarity to the words, from 0.10 to 0.30, unguided 0.10 to 0.20"' in drawn
    assert "better than 97 % of captions · similarity 0.30" in drawn
    assert curve([], 10) == ""


def test_a_curve_moves_where_percentiles_stand_still() -> None:
    drawn = curve([Fit(step, 0.2 + 0.02 * step, 100.0) for step in range(10)], 10)
    heights = [float(point.split(",")[1]) for point in re.findall(r"own\" points=\"([^\"]*)", drawn)[0].split()]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] - heights[-1] > 40
    flat = curve([Fit(0, 0.300, 100.0), Fit(9, 0.301, 100.0)], 10)
    assert "nan" not in flat


def test_names_of_files_are_quoted() -> None:
    assert stage.url('/tmp/a"b c.png') == "/gradio_api/file=/tmp/a%22b%20c.png"
