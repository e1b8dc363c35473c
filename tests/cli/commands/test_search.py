"""`clipgen search`: in the history or a folder, by text or by an image."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ..conftest import Run


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for name, colour in (("red", (200, 30, 30)), ("green", (20, 160, 40)), ("blue", (20, 40, 200))):
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
    return folder


def test_a_folder_by_similarity_to_an_image(run: Run, album: Path) -> None:
    ran = run("search", "--like", "album/green.png", "--folder", "album", "--top", "2")
    assert (ran.code, ran.err) == (0, "")
    cells = [line.split("\t") for line in ran.lines]
    assert cells[0] == ["1.000", "album/green.png"]
    assert len(cells) == 2
    again = run("search", "--like", "album/green.png", "--folder", "album", "--json")
    assert (again.data["count"], len(again.data["pictures"])) == (0, 3)


def test_the_history(run: Run, tiny_v: Path) -> None:
    assert run("search", "a fox").err == "clipgen: No PNG, JPEG or WebP file found.\n"
    made = run("a fox", "-n", "2", "-s", "1", "--steps", "2", "-m", str(tiny_v), "-o", "made/").lines
    ran = run("search", "a fox + snow - a car", "--json")
    assert ran.data["count"] == 2
    assert sorted(Path(hit["path"]).name for hit in ran.data["pictures"]) == sorted(Path(p).name for p in made)
    (Path(made[0])).unlink()
    assert len(run("search", "a fox").lines) == 1


def test_unreadable_files_are_reported_and_the_others_found(run: Run, album: Path) -> None:
    (album / "broken.png").write_text("text")
    ran = run("search", "red", "--folder", "album")
    assert (ran.code, len(ran.lines)) == (1, 3)
    assert ran.err.splitlines()[-1] == "clipgen: 1 of 4 pictures could not be read."


@pytest.mark.parametrize(
    "words, code, message",
    [
        ([], 2, "Give a text to search for, or --like IMAGE"),
        (["a fox -  "], 2, "A search is words"),
        (["a fox", "--folder", "none"], 2, "folder 'none' does not exist"),
        (["--like", "none.png"], 1, "none.png' cannot be opened"),
    ],
)
def test_invalid_arguments(run: Run, words: list[str], code: int, message: str) -> None:
    ran = run("search", *words)
    assert (ran.code, ran.out, message in ran.err) == (code, "", True), ran.err
