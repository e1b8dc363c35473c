"""`clipgen bench quality`: invalid options, its JSON object, and the report of `--pictures`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_siglip
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


@pytest.fixture
def tiny_world(tiny_v: Path, tmp_path: Path) -> str:
    """A copy of the tiny model that claims to draw storybook's concepts, with a tiny SigLIP as its judge."""
    folder = tmp_path / "tiny-world"
    shutil.copytree(tiny_v, folder)
    tiny_siglip.save(folder / "judge", "siglip")
    declared = json.loads((folder / "clipgen.json").read_text("utf-8"))
    (folder / "clipgen.json").write_text(json.dumps({**declared, "vocabulary": "storybook"}), "utf-8")
    return str(folder)


@needs_drawings
def test_a_quick_report_of_pictures(run: Run, tiny_world: str, tmp_path: Path) -> None:
    words = ("--pictures", "--quick", "--steps", "5", "--model", tiny_world, "--out", "report", "--json")
    data = run("bench", "quality", *words).data
    assert data == json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    assert data["protocol"]["steps"] == 5
    assert [len(row["judge"]) for row in data["named"]] == [1] * 6
    assert len({row["category"] for row in data["scenes"]}) == 9
    assert [row["variant"] for row in data["guidance"]][:2] == ["off", "clip"]
    ceilings = {figure["part"] for figure in data["figures"] if figure["ceiling"] is not None}
    assert {"named@1", "scenes"} <= ceilings
    text = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "named@1" in text
    assert all((tmp_path / "report" / file).is_file() and f"({file})" in text for _, file in data["sheets"])
