"""`clipgen explain`: a replay for files of clipgen, patch similarity for other images."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ..conftest import Run


@pytest.fixture
def fox(run: Run, tiny_v: Path, tmp_path: Path) -> Path:
    """An image of the tiny model, in a folder."""
    ran = run("a red fox", "-s", "3", "--steps", "3", "-m", str(tiny_v), "-o", "made/fox.png", "--no-history")
    assert ran.lines == ["made/fox.png"]
    return tmp_path / "made" / "fox.png"


def test_a_replay_is_saved_next_to_the_image(run: Run, fox: Path, tiny_v: Path) -> None:
    ran = run("explain", "made/fox.png", "-m", str(tiny_v))
    assert (ran.code, ran.lines) == (0, ["made/fox-words.png"])
    with Image.open("made/fox-words.png") as sheet:
        assert sheet.width > 3 * 256
    assert [line.split()[1] for line in ran.err.splitlines()] == ["a", "red", "fox"]
    assert run("explain", "made/fox.png", "-m", str(tiny_v), "-o", "maps/").lines == ["maps/fox-words.png"]
    assert run("explain", "made/fox.png", "-m", str(tiny_v)).lines == ["made/fox-words-1.png"]


def test_json_has_words_maps_and_drops(run: Run, fox: Path, tiny_v: Path) -> None:
    data = run("explain", "made/fox.png", "-m", str(tiny_v), "--json", "-o", "maps/").data
    assert (data["source"], data["text"], data["path"]) == ("cross-attention", "a red fox", "maps/fox-words.png")
    assert [set(word) for word in data["words"]] == [{"word", "drop", "map"}] * 3


def test_the_model_of_an_image_is_never_downloaded(run: Run, fox: Path) -> None:
    ran = run("explain", "made/fox.png")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (3, "", 1)
    assert "choose another with --model" in ran.err


def test_a_replay_that_differs_is_a_warning(run: Run, fox: Path, tiny_v: Path) -> None:
    from clipgen.image_file import encode_image, read_settings

    record = read_settings(fox).record
    Path("other.png").write_bytes(encode_image(Image.new("RGB", (128, 128), "red"), record, format="png"))
    ran = run("explain", "other.png", "-m", str(tiny_v))
    assert "warning: The replay differs from the picture" in ran.err


def test_other_images_by_patch_similarity(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (90, 60), "green").save("photo.jpg")
    ran = run("explain", "photo.jpg", "-p", "a green field", "--json")
    assert (ran.data["source"], [word["word"] for word in ran.data["words"]]) == (
        "patch similarity",
        ["a", "green", "field"],
    )
    assert "note: Not drawn again" in run("explain", "photo.jpg", "-p", "grass").err


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["photo.jpg"], 2, "The file has no prompt: give one with --prompt"),
        (["none.png"], 1, "none.png' cannot be opened: No such file or directory."),
        (["photo.jpg", "-p", " "], 2, "prompt must not be empty"),
        (["photo.jpg", "-p", "x", "-m", "nobody"], 2, "Unknown model 'nobody'"),
    ],
)
def test_invalid_arguments(run: Run, words: list[str], code: int, message: str) -> None:
    Image.new("RGB", (90, 60), "green").save("photo.jpg")
    ran = run("explain", *words)
    assert (ran.code, ran.out, message in ran.err) == (code, "", True), ran.err
    assert len(ran.err.splitlines()) == 1
