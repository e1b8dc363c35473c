"""Which pictures a list of names means: files as they are, folders with all that lies below them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def find_images(names: Iterable[str | Path]) -> Iterator[Path]:
    """Yields each named file, whatever it is, and the PNG, JPEG and WebP files below each folder, in order of name.

    Hidden files and folders inside a folder are left out.
    """
    for name in names:
        path = Path(name)
        yield from _below(path) if path.is_dir() else [path]


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(place, name) for name in sorted(files) if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        )
