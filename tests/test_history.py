"""The history: entries are found by number, word, file and position."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clipgen import history
from clipgen.errors import ClipgenError
from clipgen.home import history_path
from clipgen.settings.settings import Settings

CLIP = {"model": "c", "similarity": 0.3, "percentile": 97.0, "curve": [[0, 0.1, None]]}


def record_image(folder: Path, prompt: str, **changes: Any) -> int:
    path = folder / f"{prompt.replace(' ', '-')}.png"
    path.write_bytes(prompt.encode())
    return history.record(path, Settings(prompt, seed=7), **changes)


def test_queries_of_an_empty_history_create_no_file() -> None:
    assert history.last() is None
    assert history.find() == []
    assert history.forget_all() == 0
    assert not history_path().exists()


def test_an_entry_is_read_back_unchanged(tmp_path: Path) -> None:
    first = record_image(tmp_path, "a fox in snow")
    second = record_image(tmp_path, "ein Bär", clip=CLIP, parent=first)
    entry = history.get(second)
    assert entry == history.last()
    assert (entry.settings, entry.clip, entry.parent) == (Settings("ein Bär", seed=7), CLIP, first)
    assert entry.path == tmp_path / "ein-Bär.png"
    assert entry.time.tzinfo is not None
    assert history.get(first).clip is None
    assert entry.to_dict()["settings"]["prompt"] == "ein Bär"


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.png").write_bytes(b"x")
    assert history.get(history.record(Path("x.png"), Settings("a"))).path == tmp_path / "x.png"


def test_last_counts_backwards(tmp_path: Path) -> None:
    numbers = [record_image(tmp_path, prompt) for prompt in ("a", "b", "c")]
    assert [history.last(back).id for back in range(3)] == numbers[::-1]  # type: ignore[union-attr]
    assert history.last(3) is None


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], ["100% wolf", "an owl", "ein Bär", "a fox in snow"]),
        (["fox"], ["a fox in snow"]),
        (["FOX", "snow"], ["a fox in snow"]),
        (["fox", "owl"], []),
        (["Bär"], ["ein Bär"]),
        (["100%"], ["100% wolf"]),
        (["%"], ["100% wolf"]),
        (["a_owl"], []),
        (["an-owl.png"], ["an owl"]),
        (["' or 1=1 --"], []),
    ],
)
def test_find(tmp_path: Path, words: list[str], expected: list[str]) -> None:
    for prompt in ("a fox in snow", "ein Bär", "an owl", "100% wolf"):
        record_image(tmp_path, prompt)
    assert [entry.settings.prompt for entry in history.find(words)] == expected


def test_find_is_limited(tmp_path: Path) -> None:
    for number in range(5):
        record_image(tmp_path, f"picture {number}")
    assert [entry.settings.prompt for entry in history.find(limit=2)] == ["picture 4", "picture 3"]


def test_a_moved_file_is_recognised(tmp_path: Path) -> None:
    number = record_image(tmp_path, "a fox")
    moved = (tmp_path / "a-fox.png").rename(tmp_path / "other.png")
    unknown = tmp_path / "stranger.png"
    unknown.write_bytes(b"!")
    assert history.find_file(moved).id == number  # type: ignore[union-attr]
    assert history.find_file(unknown) is None


def test_forget_deletes_entries_and_no_files(tmp_path: Path) -> None:
    numbers = [record_image(tmp_path, prompt) for prompt in ("a", "b", "c")]
    assert history.forget([numbers[0], 99]) == 1
    with pytest.raises(ClipgenError, match=r"no picture '1'. See: clipgen history list"):
        history.get(numbers[0])
    assert history.forget_all() == 2
    assert (tmp_path / "a.png").exists()
    assert record_image(tmp_path, "d") == 4  # an id is never reused


def test_unknown_settings_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    number = record_image(tmp_path, "a")
    with sqlite3.connect(history_path()) as connection:
        connection.execute("""update pictures set settings = '{"prompt": "a", "halo": 3}'""")
    connection.close()
    assert history.get(number).settings == Settings("a")


@pytest.mark.parametrize("data", [b"this is no database, it is a text of some length, at least a hundred bytes" * 2])
def test_a_damaged_database_is_an_error_of_one_line(tmp_path: Path, data: bytes) -> None:
    history_path().write_bytes(data)
    with pytest.raises(ClipgenError, match=r"^The history '.*' cannot be used \(file is not a database\)"):
        history.find()
    assert history_path().read_bytes() == data


def test_a_newer_database_is_an_error(tmp_path: Path) -> None:
    record_image(tmp_path, "a")
    with sqlite3.connect(history_path()) as connection:
        connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(ClipgenError, match=r"newer clipgen \(version 99\)"):
        history.last()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLIPGEN_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(ClipgenError, match="cannot be used"):
        record_image(tmp_path, "a")


def test_a_file_name_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(b"x")
    with pytest.raises(ClipgenError, match="cannot be used"):
        history.record(path, Settings("a"))


def test_parallel_writers_wait_for_each_other(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda n: record_image(tmp_path, f"picture {n}"), range(24)))
    assert sorted(numbers) == list(range(1, 25))
