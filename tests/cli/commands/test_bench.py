"""`clipgen bench quality`: invalid options, its JSON object, and the report of `--pictures`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from requirements import needs_drawings

from ..conftest import Run


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["--split", "train"], 2, "Unknown split 'train'. Splits: dev, test."),
        (["--count", "3"], 2, "count must be"),
        (["--model", "nothing"], 2, "Unknown model 'nothing'."),
        (["--pictures", "--parts", "named,all"], 2, "Unknown parts 'all'. Works: named, scenes, guidance, grids."),
        (["--pictures", "--art", "oil"], 2, "Unknown art 'oil'. Works: flat, 3d, noto."),
        (["--pictures", "--seeds", "0"], 2, "seeds must be 1 to 100, got '0'"),
    ],
)
def test_invalid_options(run: Run, words: list[str], code: int, message: str) -> None:
    ran = run("bench", "quality", *words)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err


@needs_drawings
def test_json_is_one_object(run: Run) -> None:
    data = run("bench", "quality", "--count", "8", "--json").data
    assert data["protocol"]["model"] == "storybook/clip"
    assert {"part", "name", "value", "count", "error", "chance", "floor", "ceiling", "reached"} == set(
        data["figures"][0]
    )


def test_pictures_need_a_judge_and_a_vocabulary(run: Run, tiny_v: Path) -> None:
    ran = run("bench", "quality", "--pictures", "--model", str(tiny_v))
    assert (ran.code, ran.out) == (2, "")
    assert f"model '{tiny_v}' has no second CLIP to judge pictures" in ran.err


@needs_drawings
def test_a_quick_report_of_pictures(run: Run, tmp_path: Path) -> None:
    ran = run("bench", "quality", "--pictures", "--quick", "--steps", "4", "--art", "noto", "--out", "report", "--json")
    report = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    assert ran.data == report
    assert report["protocol"]["steps"] == 4
    assert [len(row["judge"]) for row in report["named"]] == [1] * 6
    assert len({row["category"] for row in report["scenes"]}) == 9
    assert [row["variant"] for row in report["guidance"]][:2] == ["off", "clip"]
    text = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "named@1" in text
    assert all((tmp_path / "report" / file).is_file() and f"({file})" in text for _, file in report["sheets"])
