"""The pictures that pages may see: byte-identical copies under names nobody can guess, in a folder of their own."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from clipgen.errors import ImageFileError

MOST_BYTES = 500_000_000


class Shelf:
    """A private folder of copies; the oldest go when there are more than `most` bytes of them.

    What visitors upload lies in the same folder, and no file outside it is ever opened for them.
    """

    def __init__(self, folder: Path, most: int = MOST_BYTES) -> None:
        self.folder = folder.resolve()
        self.most = most
        self._copies: dict[str, Path] = {}
        self._origins: dict[str, Path] = {}

    def place(self) -> Path:
        """Makes an empty folder with a name of 128 random bits."""
        self._make_room()
        place = self.folder / secrets.token_hex(16)
        place.mkdir(mode=0o700)
        return place

    def put(self, path: Path) -> Path:
        """Copies a picture, byte for byte, and returns the copy."""
        copy = Path(shutil.copyfile(path, self.place() / path.name))
        self._origins[str(copy)] = path
        return copy

    def origin(self, copy: str) -> str:
        """Returns the path of the file that a copy was made of, of an upload its mere name."""
        return str(self._origins.get(copy, Path(copy).name))

    def copy_of(self, path: Path, sha256: str) -> Path:
        """Returns the copy of a picture, which is made once; `sha256` is what the file should hold."""
        copy = self._copies.get(sha256)
        if copy is None or not copy.is_file():
            copy = self._copies[sha256] = self.put(path)
        return copy

    def uploaded(self, file: object) -> Path:
        """Returns the path of what a visitor uploaded; raises ImageFileError for anything that did not come so."""
        named = file.get("path") if isinstance(file, dict) else file
        if not isinstance(named, str) or "\0" in named or len(named) > 4_096:
            raise ImageFileError("A picture must be uploaded: a PNG, JPEG or WebP file.", field="picture")
        if not self.holds(named):
            raise ImageFileError("The picture is not one that was uploaded here. Upload it again.", field="picture")
        return Path(os.path.realpath(named))

    def holds(self, path: str) -> bool:
        """Tells whether a path is that of a file which lies here."""
        real = Path(os.path.realpath(path))
        return real.is_relative_to(self.folder) and real.is_file()

    def _make_room(self) -> None:
        places = sorted((entry for entry in self.folder.iterdir() if entry.is_dir()), key=lambda p: p.stat().st_mtime)
        sizes = {place: sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) for place in places}
        for place in places:
            if sum(sizes.values()) <= self.most:
                return
            shutil.rmtree(place)
            del sizes[place]
