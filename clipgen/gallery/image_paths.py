"""Expands a list of files and folders into image paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def find_images(names: Iterable[str | Path]) -> Iterator[Path]:
    """Yields each named file as it is, and the PNG, JPEG and WebP files below each named folder, sorted by name.

    Hidden files and folders inside a folder are skipped.
    """
    for name in names:
        path = Path(name)
        yield from _images_below(path) if path.is_dir() else [path]


def _images_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(parent, name) for name in sorted(files) if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        )
