"""What CLIP saw of many pictures, kept: a file a CLIP, where only new and changed pictures are looked at again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import ImageFileError, OutputError
from clipgen.gallery.features import iter_image_features, open_images
from clipgen.home import index_dir

SAVE_EVERY = 500  # new pictures, so that what was seen is not lost
Mark = tuple[int, int]  # a file's size and time of change
GONE: Mark = (-1, -1)


class Index:
    """The unit vectors of pictures by the path they lie at, bound to one CLIP's files; `file` holds them.

    A file that cannot be read is a new one.
    """

    def __init__(self, file: Path, clip: str) -> None:
        self.file = file
        self.clip = clip
        self._marks, self._features = self._read()

    def update(
        self, paths: Iterable[Path], encoder: ClipEncoder, fault: Callable[[Path, ImageFileError], None]
    ) -> Generator[Path, None, None]:
        """Looks at the pictures that are new or have changed, and yields each; what is gone is forgotten.

        It is saved now and then and at the end, also when nobody asks for more. Raises OutputError.
        """
        self._forget_the_gone()
        new = [path for path in dict.fromkeys(map(Path.absolute, paths)) if self._marks.get(str(path)) != _mark(path)]
        try:
            for count, (path, features) in enumerate(iter_image_features(encoder, open_images(new, fault)), 1):
                self._marks[str(path)], self._features[str(path)] = _mark(path), features.half().cpu()
                if count % SAVE_EVERY == 0:
                    self.save()
                yield path
        finally:
            self.save()

    def features(self, paths: Iterable[Path]) -> tuple[list[Path], Tensor]:
        """Returns those of the pictures that were seen, each once, and their unit vectors [N, D]."""
        known = [path for path in dict.fromkeys(paths) if str(path.absolute()) in self._features]
        vectors = [self._features[str(path.absolute())] for path in known]
        return known, torch.stack(vectors).float() if vectors else torch.empty(0, 0)

    def save(self) -> None:
        """Writes the index, whole or not at all; raises OutputError."""
        names = list(self._features)
        listed = json.dumps([[name, *self._marks[name]] for name in names])
        vectors = torch.stack([self._features[name] for name in names]) if names else torch.empty(0, 0)
        partial = self.file.with_suffix(f".{os.getpid()}.part")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            save_file({"image_features": vectors}, partial, {"clip": self.clip, "pictures": listed})
            partial.replace(self.file)
        except OSError as error:
            raise OutputError(f"'{self.file}' cannot be written: {error.strerror}") from error

    def _read(self) -> tuple[dict[str, Mark], dict[str, Tensor]]:
        if not self.file.is_file():
            return {}, {}
        try:
            with safe_open(self.file, framework="pt") as file:
                facts, vectors = file.metadata(), file.get_tensor("image_features")
            listed = json.loads(facts["pictures"])
        except (SafetensorError, KeyError, ValueError):
            return {}, {}
        if facts["clip"] != self.clip:
            return {}, {}
        marks: dict[str, Mark] = {name: (size, changed) for name, size, changed in listed}
        return marks, dict(zip(marks, vectors, strict=True))

    def _forget_the_gone(self) -> None:
        for name in [name for name in self._features if not os.path.isfile(name)]:
            del self._features[name], self._marks[name]


def _mark(path: Path) -> Mark:
    """Returns what changes with a file, GONE where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return GONE
    return stat.st_size, stat.st_mtime_ns


def open_index(clip: Path) -> Index:
    """Returns the index of the CLIP in a folder; another CLIP, or the same one with other files, has another."""
    files = [(path.name, _mark(path)) for path in sorted(clip.resolve().iterdir()) if path.is_file()]
    identity = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return Index(index_dir() / f"{identity[:16]}.safetensors", identity)
