"""The shelf: copies with the same bytes, unguessable names, bounded, and nothing outside it is ever opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from clipgen.ui.shelf import Shelf

from clipgen.errors import ImageFileError


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "shelf").mkdir()
    return Shelf(tmp_path / "shelf", most=1_000)


def test_a_copy_has_the_bytes_and_another_place(shelf: Shelf, tmp_path: Path) -> None:
    picture = tmp_path / "fox.png"
    picture.write_bytes(b"fox" * 9)
    copies = {shelf.put(picture) for _ in range(5)}
    assert len(copies) == 5
    assert {copy.read_bytes() for copy in copies} == {picture.read_bytes()}
    assert all(copy.name == "fox.png" and len(copy.parent.name) == 32 for copy in copies)


def test_the_oldest_go_when_it_is_full(shelf: Shelf, tmp_path: Path) -> None:
    picture = tmp_path / "fox.png"
    picture.write_bytes(b"x" * 400)
    copies = [shelf.put(picture) for _ in range(6)]
    assert copies[-1].is_file()
    assert sum(copy.is_file() for copy in copies) <= 3


def test_a_picture_of_the_history_is_copied_once(shelf: Shelf, tmp_path: Path) -> None:
    picture = tmp_path / "fox.png"
    picture.write_bytes(b"fox")
    assert shelf.copy_of(picture, "ab") == shelf.copy_of(picture, "ab") != shelf.copy_of(picture, "cd")


@pytest.mark.parametrize(
    "file",
    ["/etc/passwd", "../../etc/passwd", None, 7, [], {"path": "/etc/passwd"}, {"path": None}, {}, "a\0b", "x" * 9999],
)
def test_only_uploads_are_opened(shelf: Shelf, file: object) -> None:
    with pytest.raises(ImageFileError, match="upload") as error:
        shelf.uploaded(file)
    assert "/etc" not in str(error.value)


def test_a_link_out_of_the_shelf_is_no_upload(shelf: Shelf) -> None:
    link = shelf.folder / "link.png"
    link.symlink_to("/etc/passwd")
    with pytest.raises(ImageFileError):
        shelf.uploaded({"path": str(link)})


def test_an_upload_is(shelf: Shelf) -> None:
    (shelf.folder / "fox.png").write_bytes(b"fox")
    assert shelf.uploaded({"path": str(shelf.folder / "fox.png")}) == shelf.folder / "fox.png"
