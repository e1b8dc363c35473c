"""What visitors bring: pictures that were uploaded here, opened once, and the settings inside."""

from __future__ import annotations

from pathlib import Path

from clipgen.image_file import RestoredSettings, open_image, read_settings

from .shelf import Shelf

KINDS = [".png", ".jpg", ".jpeg", ".webp"]


def picture_of(shelf: Shelf, file: object) -> Path:
    """Returns the path of an uploaded picture that can be opened; raises ImageFileError."""
    path = shelf.uploaded(file)
    open_image(path)
    return path


def read(shelf: Shelf, file: object) -> tuple[Path, RestoredSettings]:
    """Returns the path of an uploaded picture and the settings inside; raises ImageFileError."""
    path = picture_of(shelf, file)
    return path, read_settings(path)
