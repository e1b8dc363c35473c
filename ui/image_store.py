"""Temporary image files that the browser may load: byte-identical copies of saved images, and uploads."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from clipgen.errors import ImageFileError
from clipgen.image_file import RestoredSettings, open_image, read_settings

MAX_BYTES = 500_000_000
MAX_PATH = 4_096  # characters
IMAGE_SUFFIXES = [".png", ".jpg", ".jpeg", ".webp"]


class ImageStore:
    """A private folder of image files. When it exceeds `max_bytes`, the oldest files are deleted.

    Gradio saves uploads to the same folder. No file outside it is ever opened for a request.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder.resolve()
        self.max_bytes = max_bytes
        self._copies: dict[str, Path] = {}
        self._originals: dict[str, Path] = {}

    def new_folder(self) -> Path:
        """Creates an empty folder whose name is 128 random bits, so that no URL can be guessed."""
        self._delete_oldest()
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder

    def add(self, path: Path) -> Path:
        """Copies an image byte for byte, so that the settings inside it remain; returns the path of the copy."""
        copy = Path(shutil.copyfile(path, self.new_folder() / path.name))
        self._originals[str(copy)] = path
        return copy

    def add_once(self, path: Path, sha256: str) -> Path:
        """Returns the copy of an image, which is made at the first call; `sha256` identifies the image."""
        copy = self._copies.get(sha256)
        if copy is None or not copy.is_file():
            copy = self._copies[sha256] = self.add(path)
        return copy

    def original(self, copy: str) -> str:
        """Returns the path of the file that a copy was made from; for an upload, its file name."""
        return str(self._originals.get(copy, Path(copy).name))

    def contains(self, path: str) -> bool:
        """Returns whether a path, after symbolic links are resolved, is a file in this store."""
        real = Path(os.path.realpath(path))
        return real.is_relative_to(self.folder) and real.is_file()

    def upload_path(self, file: object) -> Path:
        """Returns the path of an upload; raises ImageFileError for anything that is not an upload.

        Args:
            file: A path, or Gradio's FileData dict with the key "path", as the request contains it.
        """
        path = file.get("path") if isinstance(file, dict) else file
        if not isinstance(path, str) or "\0" in path or len(path) > MAX_PATH:
            raise ImageFileError("A picture must be uploaded: a PNG, JPEG or WebP file.", field="picture")
        if not self.contains(path):
            raise ImageFileError("The picture is not one that was uploaded here. Upload it again.", field="picture")
        return Path(os.path.realpath(path))

    def image_path(self, file: object) -> Path:
        """Returns the path of an upload that is a readable image; raises ImageFileError."""
        path = self.upload_path(file)
        open_image(path)
        return path

    def read_settings(self, file: object) -> tuple[Path, RestoredSettings]:
        """Returns the path of an uploaded image and the settings stored inside it; raises ImageFileError."""
        path = self.image_path(file)
        return path, read_settings(path)

    def _delete_oldest(self) -> None:
        folders = sorted((entry for entry in self.folder.iterdir() if entry.is_dir()), key=lambda p: p.stat().st_mtime)
        sizes = {folder: sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) for folder in folders}
        for folder in folders:
            if sum(sizes.values()) <= self.max_bytes:
                return
            shutil.rmtree(folder)
            del sizes[folder]
