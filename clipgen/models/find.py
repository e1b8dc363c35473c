"""Finds the folder of a model: a bundled one, a local folder, or a hub repository that is downloaded once."""

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

BUNDLED = {"storybook": Path(str(files("clipgen"))) / "storybook"}
DENOISERS = ("unet", "transformer")
MAX_ID = 96
_FOLDER = re.compile(r"\.{1,2}([/\\]|$)|[/\\~]|[A-Za-z]:[/\\]")
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB = re.compile(rf"({_WORD}/{_WORD})(?:@({_WORD}))?")
_BLOB = re.compile(r"[0-9a-f]{64}")
# What is downloaded from a hub repository: configs, tokenizers and safetensors, no second precision or training state.
ALLOW_PATTERNS = ["*.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
IGNORE_PATTERNS = ["*.fp16[.-]*", "*.non_ema.*", "*.ema.*", "*onnx*", "*flax*", "*openvino*"]
IGNORE_PATTERNS += [
    "safety_checker/*",
    "text_encoders/*",
]  # text_encoders: copies in clipgen's own folders for other apps
CLIP_ALLOW_PATTERNS = ["*.json", "*.txt", "model*.safetensors"]


@dataclass(frozen=True)
class ModelId:
    """A parsed model name: a bundled model, a local folder or a hub repository."""

    kind: Literal["bundled", "folder", "hub"]
    name: str
    revision: str | None = None


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine: the name it was requested by, its folder, and the kind of that name."""

    name: str
    path: Path
    kind: Literal["bundled", "folder", "hub"]

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of the denoiser's weights (of the index if they are sharded), 64 hex digits.

        Files in the hub cache are named by their hash; other files are read. Raises ModelError without a denoiser.
        """
        for name in DENOISERS:
            if (self.path / name).is_dir():
                index, weights = weight_files(self.path / name)
                file = (index or weights[0]).resolve()
                return file.name if _BLOB.fullmatch(file.name) else sha256_of(file)
        raise ModelError(f"Model '{self.name}' has no {' or '.join(DENOISERS)} folder.")


def bundled_model(name: str = "storybook") -> Path:
    """Returns the folder of a bundled model, in diffusers' layout; raises ModelNotFound for an unknown name."""
    if name not in BUNDLED:
        raise ModelNotFound(f"There is no bundled model '{name[:200]}'. Bundled: {', '.join(BUNDLED)}.", field="model")
    return BUNDLED[name]


def parse_id(model: str) -> ModelId:
    """Parses a model name: `storybook`, `org/name`, `org/name@revision`, or a path that begins with ./ ../ / ~ or C:.

    `org/name` is always a hub id, even if there is a folder of that name. Raises SettingsError for other names.
    """
    if model in BUNDLED:
        return ModelId("bundled", model)
    if _FOLDER.match(model):
        return ModelId("folder", model)
    hub = _HUB.fullmatch(model)
    if hub and len(model) <= MAX_ID and ".." not in model:
        return ModelId("hub", hub[1], hub[2])
    near = difflib.get_close_matches(model, BUNDLED, n=1)
    guess = f"Did you mean {near[0]}?" if near else f"Works: {', '.join(BUNDLED)}, org/name, ./folder."
    raise SettingsError(f"Unknown model {model[:60]!r}. {guess}", field="model", allowed=tuple(BUNDLED))


def _check_exists(model_id: ModelId, path: Path) -> None:
    """Raises ModelNotFound if the folder that a user named does not exist."""
    if model_id.kind == "folder" and not path.is_dir():
        raise ModelNotFound(f"There is no folder '{model_id.name[:200]}'.", field="model")


def find_model(model: str, *, offline: bool = False) -> ModelFolder:
    """Returns the folder of a model; downloads a hub id that is not on this machine unless `offline`.

    Raises SettingsError for an invalid name, and ModelNotFound.
    """
    model_id = parse_id(model)
    if model_id.kind == "hub":
        return ModelFolder(model, _download(model_id, offline, ALLOW_PATTERNS), "hub")
    path = _local_folder(model_id)
    _check_exists(model_id, path)
    if not (path / "model_index.json").is_file():
        problem = (
            "is missing from this installation" if model_id.kind == "bundled" else "is not a diffusers model folder"
        )
        raise ModelNotFound(f"Model '{model[:200]}' {problem}: it has no model_index.json.", field="model")
    return ModelFolder(model, path, model_id.kind)


def find_clip(model: str, *, offline: bool = False) -> ModelFolder:
    """Returns the folder of a CLIP: the `clip` folder of a model, a transformers folder, or a hub id to download.

    Raises SettingsError for an invalid name, and ModelNotFound.
    """
    model_id = parse_id(model)
    if model_id.kind == "hub":
        return ModelFolder(model, _download(model_id, offline, CLIP_ALLOW_PATTERNS), "hub")
    path = _local_folder(model_id)
    _check_exists(model_id, path)
    for folder in (path / "clip", path):
        if (folder / "config.json").is_file():
            return ModelFolder(model, folder, model_id.kind)
    raise ModelNotFound(f"Model '{model[:200]}' is not a CLIP folder: it has no config.json.", field="model")


def _local_folder(model_id: ModelId) -> Path:
    return BUNDLED[model_id.name] if model_id.kind == "bundled" else Path(model_id.name).expanduser()


def list_models() -> list[ModelFolder]:
    """Returns the models on this machine: the bundled ones and the text-to-image models in the hub cache."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    bundled = [
        ModelFolder(name, path, "bundled") for name, path in BUNDLED.items() if (path / "model_index.json").is_file()
    ]
    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return bundled
    newest = [(repo.repo_id, max(repo.revisions, key=lambda r: r.last_modified)) for repo in repos if repo.revisions]
    cached = [ModelFolder(name, revision.snapshot_path, "hub") for name, revision in newest]
    return bundled + sorted((m for m in cached if (m.path / "model_index.json").is_file()), key=lambda m: m.name)


def _download(model_id: ModelId, offline: bool, allow_patterns: list[str]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    offline = offline or constants.HF_HUB_OFFLINE
    try:
        folder = snapshot_download(
            model_id.name,
            revision=model_id.revision,
            local_files_only=offline,
            allow_patterns=allow_patterns,
            ignore_patterns=IGNORE_PATTERNS,
        )
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        reason = "clipgen is offline" if offline else "the hub cannot be reached"
        raise ModelNotFound(f"Model '{model_id.name}' is not on this machine, and {reason}.", field="model") from None
    except HfHubHTTPError as error:
        raise ModelNotFound(
            f"Model '{model_id.name}' could not be downloaded: {str(error).splitlines()[0]}", field="model"
        ) from None
    return Path(folder)
