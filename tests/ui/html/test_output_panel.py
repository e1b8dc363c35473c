"""The HTML of the output panel: each text is escaped, scores are percentiles."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from clipgen.ui.html import output_panel
from clipgen.ui.image_info import ImageInfo

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
    """Collects the tags, attributes and text of HTML."""

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


def image(prompt: str = "a fox", **changes: object) -> ImageInfo:
    values = {**Settings(prompt, seed=3, steps=20, width=128, height=128).to_dict()}
    return ImageInfo(
        **{"path": f"/tmp/{prompt[:9]}.png", "settings": values, "seed": 3, "seconds": 1.25, "clip": CLIP, **changes}
    )


@pytest.mark.parametrize(
    "html",
    [
        output_panel.finished(image(EVIL, warnings=(Note("x", None, EVIL),))),
        output_panel.message(EVIL),
        output_panel.table([(EVIL, EVIL)]),
        output_panel.loading(EVIL, 1),
        output_panel.generating("data:,", 1, 20, None, "", EVIL),
        output_panel.facts(image(clip={**CLIP, "model": EVIL})),
        output_panel.warnings([Note("x", None, EVIL)]),
    ],
)
def test_markup_in_texts_is_escaped(html: str) -> None:
    tags = Tags(html)
    assert not {"script", "iframe", "object"} & set(tags.tags)
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert [value for name, value in tags.attributes if name == "src" and value == "x"] == []
    assert EVIL in tags.text + "".join(value or "" for _, value in tags.attributes)


def test_a_score_is_a_percentile_and_a_grade() -> None:
    text = Tags(output_panel.score(CLIP)).text
    assert "Matches the prompt better than 97% of 988 other captionsgood" in text
    assert "self-graded" in output_panel.score({**CLIP, "self_graded": True})
    assert "Not calibrated" in output_panel.score({**CLIP, "percentile": None})
    assert "no CLIP" in output_panel.score(None)


def test_facts_have_seed_time_steps_size_and_position() -> None:
    text = Tags(output_panel.facts(image(), "2 of 4")).text
    assert all(fact in text for fact in ("seed3", "time1.2 s", "steps20", "128 × 128", "2 of 4"))


def test_file_names_are_quoted_in_urls() -> None:
    assert output_panel.image_url('/tmp/a"b c.png') == "/gradio_api/file=/tmp/a%22b%20c.png"
