"""The image store: byte-identical copies under names that cannot be guessed; no file outside it is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from clipgen.ui.image_store import ImageStore

from clipgen.errors import ImageFileError


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    (tmp_path / "store").mkdir()
    return ImageStore(tmp_path / "store", max_bytes=1_000)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "fox.png"
    path.write_bytes(b"fox" * 9)
    return path


def test_copies_have_the_same_bytes_and_different_folders(store: ImageStore, image: Path) -> None:
    copies = {store.add(image) for _ in range(5)}
    assert len(copies) == 5
    assert {copy.read_bytes() for copy in copies} == {image.read_bytes()}
    assert all(copy.name == "fox.png" and len(copy.parent.name) == 32 for copy in copies)
    assert store.original(str(copies.pop())) == str(image)


def test_the_oldest_copies_are_deleted_when_the_store_is_full(store: ImageStore, image: Path) -> None:
    image.write_bytes(b"x" * 400)
    copies = [store.add(image) for _ in range(6)]
    assert copies[-1].is_file()
    assert sum(copy.is_file() for copy in copies) <= 3


def test_an_image_of_the_history_is_copied_once(store: ImageStore, image: Path) -> None:
    assert store.add_once(image, "ab") == store.add_once(image, "ab") != store.add_once(image, "cd")


@pytest.mark.parametrize(
    "file",
    ["/etc/passwd", "../../etc/passwd", None, 7, [], {"path": "/etc/passwd"}, {"path": None}, {}, "a\0b", "x" * 9999],
)
def test_only_uploads_are_accepted(store: ImageStore, file: object) -> None:
    with pytest.raises(ImageFileError, match="upload") as error:
        store.upload_path(file)
    assert "/etc" not in str(error.value)


def test_a_link_to_a_file_outside_the_store_is_not_an_upload(store: ImageStore) -> None:
    link = store.folder / "link.png"
    link.symlink_to("/etc/passwd")
    with pytest.raises(ImageFileError):
        store.upload_path({"path": str(link)})


def test_a_file_in_the_store_is_an_upload(store: ImageStore) -> None:
    (store.folder / "fox.png").write_bytes(b"fox")
    assert store.upload_path({"path": str(store.folder / "fox.png")}) == store.folder / "fox.png"
