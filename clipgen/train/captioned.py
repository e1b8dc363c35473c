"""The user's captioned images: a folder of images with a .txt file for each, or a CSV of files and captions."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from clipgen.errors import ImageFileError, SettingsError
from clipgen.gallery import find_images
from clipgen.hashing import sha256_of
from clipgen.image_file import open_image
from clipgen.train.data import Bytes, to_float

FEWEST = 8  # images, of which one is held back
FILE_COLUMNS = ("file", "image", "path", "file_name", "filename")
TEXT_COLUMNS = ("caption", "text", "prompt")


@dataclass(frozen=True)
class Pair:
    """An image file and its captions."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Captioned:
    """Images, uint8 [count, size, size, 3], and the captions of each; `skipped` files could not be used."""

    pixels: Bytes
    captions: tuple[tuple[str, ...], ...]
    skipped: int

    def __len__(self) -> int:
        return len(self.pixels)

    def caption(self, index: int, rng: random.Random, *, complete: bool = False) -> str:
        """Returns a caption of an image, drawn at random."""
        return rng.choice(self.captions[index])

    def images(self, indices: npt.NDArray[np.int64]) -> torch.Tensor:
        """Returns images as float [B, 3, size, size] in [-1, 1]."""
        return to_float(torch.from_numpy(self.pixels[indices]))


def find_pairs(data: Path) -> list[Pair]:
    """Returns the captioned images of a folder or a CSV file. Raises SettingsError if there are too few.

    The captions of `fox.png` are the lines of `fox.txt`. A CSV file has a column of image files, relative to itself,
    and a column of captions; several rows may name one file.
    """
    if not data.exists():
        raise SettingsError(f"data '{data}' does not exist. Works: a folder, or a CSV file", field="data")
    pairs = list(_read_folder(data) if data.is_dir() else _read_csv(data))
    if len(pairs) < FEWEST:
        kind = "pictures with a .txt of the same name" if data.is_dir() else "lines with a file and a caption"
        raise SettingsError(f"data '{data}' must hold at least {FEWEST} {kind}, got '{len(pairs)}'", field="data")
    return pairs


def _read_folder(folder: Path) -> Iterator[Pair]:
    for path in find_images([folder]):
        text = path.with_suffix(".txt")
        if text.is_file() and (captions := _clean(text.read_text("utf-8", "replace").splitlines())):
            yield Pair(path, captions)


def _read_csv(table: Path) -> Iterator[Pair]:
    captions: dict[Path, list[str]] = {}
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
        columns = [
            next((names[name] for name in accepted if name in names), None) for accepted in (FILE_COLUMNS, TEXT_COLUMNS)
        ]
        if None in columns:
            needed = f"one of {', '.join(FILE_COLUMNS)} and one of {', '.join(TEXT_COLUMNS)}"
            raise SettingsError(f"data '{table}' needs columns {needed}, got '{', '.join(names)}'", field="data")
        for row in reader:
            name, caption = (row[column] for column in columns)
            if name and caption:
                captions.setdefault(table.parent / name.strip(), []).append(caption)
    return (Pair(path, clean) for path, lines in captions.items() if (clean := _clean(lines)))


def _clean(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(line for line in (" ".join(raw.split()) for raw in lines) if line)


def captioned(data: Path, folder: Path, size: int) -> Captioned:
    """Reads the captioned images of `data`, cropped to the centre square, and caches them in `folder`.

    The cache is used until a file or caption changes. Files that cannot be opened are skipped and counted. Raises
    SettingsError if too few images are left.
    """
    pairs = find_pairs(data)
    fingerprint = _fingerprint(pairs, size)
    description, stored = folder / "pictures.json", folder / "pictures.u8"
    if not description.exists() or json.loads(description.read_text("utf-8"))["state"] != fingerprint:
        folder.mkdir(parents=True, exist_ok=True)
        _store(pairs, size, fingerprint, description, stored)
    facts = json.loads(description.read_text("utf-8"))
    captions = tuple(map(tuple, facts["captions"]))
    if len(captions) < FEWEST:
        raise SettingsError(f"data '{data}' must hold at least {FEWEST} pictures that can be read", field="data")
    pictures = np.memmap(stored, np.uint8, "r", shape=(len(captions), size, size, 3))
    return Captioned(pictures, captions, facts["skipped"])


def _store(pairs: list[Pair], size: int, fingerprint: str, description: Path, stored: Path) -> None:
    partial = stored.with_suffix(f".{os.getpid()}.part")
    captions = []
    with partial.open("wb") as file:
        for pair in pairs:
            try:
                image = open_image(pair.path)
            except ImageFileError:
                continue
            file.write(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC).tobytes())
            captions.append(pair.captions)
    partial.replace(stored)
    facts = {"state": fingerprint, "captions": captions, "skipped": len(pairs) - len(captions)}
    description.write_text(json.dumps(facts), "utf-8")


def _fingerprint(pairs: list[Pair], size: int) -> str:
    """Returns a hash that changes with the size, time or captions of any file."""
    facts = [
        (str(pair.path), pair.captions, (stat.st_size, stat.st_mtime_ns) if (stat := _stat(pair.path)) else None)
        for pair in pairs
    ]
    return sha256_of(json.dumps([size, facts]))


def _stat(path: Path) -> os.stat_result | None:
    return path.stat() if path.is_file() else None
