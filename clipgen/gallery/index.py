"""A cache of CLIP image features on disk, one file per CLIP, so that only new and changed images are encoded."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import OutputError
from clipgen.gallery.features import OnError, iter_image_features, open_images
from clipgen.hashing import sha256_of
from clipgen.home import index_dir

SAVE_EVERY = 500  # new images, so that an interruption loses little
FileState = tuple[int, int]  # size and modification time in nanoseconds
MISSING: FileState = (-1, -1)


class ImageIndex:
    """The unit vectors of images by absolute path, for the CLIP with the identity `clip`, stored in `file`.

    A damaged file counts as an empty index.
    """

    def __init__(self, file: Path, clip: str) -> None:
        self.file = file
        self.clip = clip
        self._states, self._features = self._read()

    def update(self, encoder: ClipEncoder, paths: Iterable[Path], on_error: OnError) -> Generator[Path, None, None]:
        """Encodes new and changed images and yields the path of each; drops images that no longer exist.

        The index is saved every SAVE_EVERY images and at the end, also if the generator is closed early. Raises
        OutputError.
        """
        self._drop_missing()
        unique = dict.fromkeys(map(Path.absolute, paths))
        outdated = [path for path in unique if self._states.get(str(path)) != _file_state(path)]
        try:
            for count, (path, features) in enumerate(iter_image_features(encoder, open_images(outdated, on_error)), 1):
                self._states[str(path)], self._features[str(path)] = _file_state(path), features.half().cpu()
                if count % SAVE_EVERY == 0:
                    self.save()
                yield path
        finally:
            self.save()

    def features(self, paths: Iterable[Path]) -> tuple[list[Path], Tensor]:
        """Returns those of the paths that are in the index, each once, and their unit vectors [N, D]."""
        indexed = [path for path in dict.fromkeys(paths) if str(path.absolute()) in self._features]
        vectors = [self._features[str(path.absolute())] for path in indexed]
        return indexed, torch.stack(vectors).float() if vectors else torch.empty(0, 0)

    def save(self) -> None:
        """Writes the index atomically; raises OutputError."""
        names = list(self._features)
        states = json.dumps([[name, *self._states[name]] for name in names])
        vectors = torch.stack([self._features[name] for name in names]) if names else torch.empty(0, 0)
        partial = self.file.with_suffix(f".{os.getpid()}.part")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            save_file({"image_features": vectors}, partial, {"clip": self.clip, "pictures": states})
            partial.replace(self.file)
        except OSError as error:
            raise OutputError(f"'{self.file}' cannot be written: {error.strerror}") from error

    def _read(self) -> tuple[dict[str, FileState], dict[str, Tensor]]:
        if not self.file.is_file():
            return {}, {}
        try:
            with safe_open(self.file, framework="pt") as file:
                metadata, vectors = file.metadata(), file.get_tensor("image_features")
            entries = json.loads(metadata["pictures"])
        except (SafetensorError, KeyError, ValueError):
            return {}, {}
        if metadata["clip"] != self.clip:
            return {}, {}
        states: dict[str, FileState] = {name: (size, modified) for name, size, modified in entries}
        return states, dict(zip(states, vectors, strict=True))

    def _drop_missing(self) -> None:
        for name in [name for name in self._features if not os.path.isfile(name)]:
            del self._features[name], self._states[name]


def _file_state(path: Path) -> FileState:
    """Returns what changes when a file changes, MISSING if there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return MISSING
    return stat.st_size, stat.st_mtime_ns


def open_index(clip_folder: Path) -> ImageIndex:
    """Returns the index of the CLIP in a folder; if a file of the CLIP changes, its index is another one."""
    files = [(path.name, _file_state(path)) for path in sorted(clip_folder.resolve().iterdir()) if path.is_file()]
    identity = sha256_of(json.dumps(files))
    return ImageIndex(index_dir() / f"{identity[:16]}.safetensors", identity)
