from __future__ import annotations

from clipgen.gallery import find_images


def test_named_files_and_the_sorted_images_below_folders(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png", "deep/c.webp", "deep/.cache/d.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    named = [tmp_path / "notes.txt", tmp_path, tmp_path / "none.png"]
    paths = [path.relative_to(tmp_path).as_posix() for path in find_images(named)]
    assert paths == ["notes.txt", "a.jpg", "b.PNG", "deep/c.webp", "none.png"]
