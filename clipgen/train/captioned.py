"""Somebody's own pictures to train on: a folder of pictures with a .txt beside each, or a CSV of files and captions."""

from __future__ import annotations

import csv
import hashlib
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
from clipgen.image_file import open_image
from clipgen.train.data import Bytes, to_unit

FEWEST = 8  # pictures from which something can be learnt and something held back
FILE_COLUMNS = ("file", "image", "path", "file_name", "filename")
TEXT_COLUMNS = ("caption", "text", "prompt")


@dataclass(frozen=True)
class Pair:
    """A picture's file and what is said of it, one caption or several."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Captioned:
    """Pictures, uint8 [count, size, size, 3], and the captions of each; `skipped` files could not be used."""

    pictures: Bytes
    captions: tuple[tuple[str, ...], ...]
    skipped: int

    def __len__(self) -> int:
        return len(self.pictures)

    def caption(self, index: int, rng: random.Random) -> str:
        """Draws a caption of a picture."""
        return rng.choice(self.captions[index])

    def images(self, indices: npt.NDArray[np.int64]) -> torch.Tensor:
        """Returns pictures as float [B, 3, size, size] in [-1, 1]."""
        return to_unit(torch.from_numpy(self.pictures[indices]))


def find_pairs(data: Path) -> list[Pair]:
    """Returns the captioned pictures of a folder or a CSV file; raises SettingsError where there are none.

    Beside `fox.png` lies `fox.txt`, a caption a line. A CSV has a column of files, relative to itself, and one of
    captions; a file may come again with another caption.
    """
    if not data.exists():
        raise SettingsError(f"data '{data}' is not there. Works: a folder, or a CSV file", field="data")
    pairs = list(_beside(data) if data.is_dir() else _listed(data))
    if len(pairs) < FEWEST:
        kind = "pictures with a .txt beside them" if data.is_dir() else "lines with a file and a caption"
        raise SettingsError(f"data '{data}' must hold at least {FEWEST} {kind}, got '{len(pairs)}'", field="data")
    return pairs


def _beside(folder: Path) -> Iterator[Pair]:
    for path in find_images([folder]):
        text = path.with_suffix(".txt")
        if text.is_file() and (captions := _clean(text.read_text("utf-8", "replace").splitlines())):
            yield Pair(path, captions)


def _listed(table: Path) -> Iterator[Pair]:
    found: dict[Path, list[str]] = {}
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
        columns = [
            next((names[name] for name in wanted if name in names), None) for wanted in (FILE_COLUMNS, TEXT_COLUMNS)
        ]
        if None in columns:
            wanted = f"one of {', '.join(FILE_COLUMNS)} and one of {', '.join(TEXT_COLUMNS)}"
            raise SettingsError(f"data '{table}' needs columns {wanted}, got '{', '.join(names)}'", field="data")
        for row in reader:
            name, caption = (row[column] for column in columns)
            if name and caption:
                found.setdefault(table.parent / name.strip(), []).append(caption)
    return (Pair(path, captions) for path, lines in found.items() if (captions := _clean(lines)))


def _clean(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(line for line in (" ".join(raw.split()) for raw in lines) if line)


def captioned(data: Path, folder: Path, size: int) -> Captioned:
    """Reads the captioned pictures of `data` as squares, kept in `folder` until one of the files changes.

    The middle of each picture is taken. Files that cannot be opened are left out and counted; raises SettingsError if
    too few are left.
    """
    pairs = find_pairs(data)
    state = _state_of(pairs, size)
    described, stored = folder / "pictures.json", folder / "pictures.u8"
    if not described.exists() or json.loads(described.read_text("utf-8"))["state"] != state:
        folder.mkdir(parents=True, exist_ok=True)
        _store(pairs, size, state, described, stored)
    facts = json.loads(described.read_text("utf-8"))
    captions = tuple(map(tuple, facts["captions"]))
    if len(captions) < FEWEST:
        raise SettingsError(f"data '{data}' must hold at least {FEWEST} pictures that can be read", field="data")
    pictures = np.memmap(stored, np.uint8, "r", shape=(len(captions), size, size, 3))
    return Captioned(pictures, captions, facts["skipped"])


def _store(pairs: list[Pair], size: int, state: str, described: Path, stored: Path) -> None:
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
    facts = {"state": state, "captions": captions, "skipped": len(pairs) - len(captions)}
    described.write_text(json.dumps(facts), "utf-8")


def _state_of(pairs: list[Pair], size: int) -> str:
    """Returns what changes with any file or caption."""
    told = [
        (str(pair.path), pair.captions, (stat.st_size, stat.st_mtime_ns) if (stat := _stat(pair.path)) else None)
        for pair in pairs
    ]
    return hashlib.sha256(json.dumps([size, told]).encode("utf-8", "surrogatepass")).hexdigest()


def _stat(path: Path) -> os.stat_result | None:
    return path.stat() if path.is_file() else None
