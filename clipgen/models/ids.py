"""The names of models: bundled ones, local folders and files, repositories of the hub; and the hub cache."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal

from clipgen.errors import ModelError, ModelNotFound, SettingsError
from clipgen.hashing import sha256_of
from clipgen.models.header import weight_files
from clipgen.settings.checks import is_weight_file

BUNDLED = {"storybook": Path(str(files("clipgen"))) / "storybook"}
SourceKind = Literal["bundled", "folder", "file", "hub"]
DENOISERS = ("unet", "transformer")
MAX_ID = 96
_FOLDER = re.compile(r"\.{1,2}([/\\]|$)|[/\\~]|[A-Za-z]:[/\\]")
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB = re.compile(rf"({_WORD}/{_WORD})(?:@({_WORD}|refs/pr/[0-9]+))?")
_BLOB = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelId:
    """A parsed model name: a bundled model, a local folder or file, or a hub repository."""

    kind: SourceKind
    name: str
    revision: str | None = None


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine: the name it was requested by, its folder, and the kind of that name.

    `weights` is the checkpoint if it is a single file; `path` is then the folder of the same name next to it, which may
    not exist.
    """

    name: str
    path: Path
    kind: SourceKind
    weights: Path | None = None

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of the single file or the denoiser's weights, 64 hex digits; raises ModelError without them."""
        if self.weights is not None:
            return sha256_of(self.weights)
        for name in DENOISERS:
            if (self.path / name).is_dir():
                return weights_hash(self.path / name)
        if (self.path / "config.json").is_file():  # a network, not a model
            return weights_hash(self.path)
        raise ModelError(f"Model '{self.name}' has no {' or '.join(DENOISERS)} folder.")


def parse_id(model: str) -> ModelId:
    """Parses a model name: `storybook`, `org/name`, `org/name@revision`, a path, or a file such as x.safetensors.

    A revision is a branch, a tag, a commit, or `refs/pr/N`.

    A path begins with ./ ../ / ~ or C:. `org/name` is always a hub id, even if there is a folder of that name.
    Raises SettingsError for other names.
    """
    if model in BUNDLED:
        return ModelId("bundled", model)
    if is_weight_file(model):
        return ModelId("file", model)
    if _FOLDER.match(model):
        return ModelId("folder", model)
    hub = _HUB.fullmatch(model)
    if hub and len(model) <= MAX_ID and ".." not in model:
        return ModelId("hub", hub[1], hub[2])
    near = difflib.get_close_matches(model, BUNDLED, n=1)
    works = ", ".join((*BUNDLED, "org/name", "./folder", "file.safetensors"))
    guess = f"Did you mean {near[0]}?" if near else f"Works: {works}."
    raise SettingsError(f"Unknown model {model[:60]!r}. {guess}", field="model", allowed=tuple(BUNDLED))


def weights_hash(folder: Path) -> str:
    """Returns the SHA-256 of a component's weights (of the index if they are sharded), 64 hex digits.

    Files in the hub cache are named by their hash; other files are read. Raises ModelError if there are no weights.
    """
    index, weights = weight_files(folder)
    file = (index or weights[0]).resolve()
    return file.name if _BLOB.fullmatch(file.name) else sha256_of(file)


def is_offline() -> bool:
    """Tells whether HF_HUB_OFFLINE forbids every connection."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def cached_folder(model_id: ModelId) -> Path:
    """Returns the snapshot of a repository in the hub cache; raises ModelNotFound if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:  # without patterns every file of the repository would have to be there
        folder = snapshot_download(model_id.name, revision=model_id.revision, local_files_only=True, allow_patterns=[])
    except LocalEntryNotFoundError:
        name = model_id.name
        cure = (
            ", and HF_HUB_OFFLINE forbids the download."
            if is_offline()
            else f". Download it: clipgen models pull {name}"
        )
        raise ModelNotFound(f"Model '{name}' is not on this machine{cure}", field="model") from None
    return Path(folder)
