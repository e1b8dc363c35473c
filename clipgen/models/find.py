"""Where a model lies: the bundled one, a local folder, or a hub id that is downloaded once."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal

from clipgen.errors import ModelError, ModelNotFound, SettingsError
from clipgen.image_file import digest_of
from clipgen.models.header import weight_files

BUNDLED = {"storybook": Path(str(files("clipgen"))) / "storybook"}
DENOISERS = ("unet", "transformer")
MAX_ID = 96
_FOLDER = re.compile(r"\.{1,2}([/\\]|$)|[/\\~]|[A-Za-z]:[/\\]")
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB = re.compile(rf"({_WORD}/{_WORD})(?:@({_WORD}))?")
_BLOB = re.compile(r"[0-9a-f]{64}")
# What is fetched of a hub repository: configs, tokenizers, safetensors; no half of a pair, no training state.
FETCHED = ["*.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
NOT_FETCHED = ["*.fp16[.-]*", "*.non_ema.*", "*.ema.*", "*onnx*", "*flax*", "*openvino*"]
NOT_FETCHED += ["safety_checker/*", "text_encoders/*"]  # the latter: what is in our folders, as other apps want it
FETCHED_OF_A_CLIP = ["*.json", "*.txt", "model*.safetensors"]


@dataclass(frozen=True)
class ModelId:
    """A model as a person named it: a bundled name, a local folder or a hub repository."""

    kind: Literal["bundled", "folder", "hub"]
    name: str
    revision: str | None = None


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine: the id it was asked for by, its folder, and where that came from."""

    name: str
    path: Path
    kind: Literal["bundled", "folder", "hub"]

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of the denoiser's weights (of the index, where they are split), 64 hex digits.

        The hub's cache names a file by it; any other file is read once. Raises ModelError if there is no denoiser.
        """
        for name in DENOISERS:
            if (self.path / name).is_dir():
                index, weights = weight_files(self.path / name)
                file = (index or weights[0]).resolve()
                return file.name if _BLOB.fullmatch(file.name) else digest_of(file)
        raise ModelError(f"Model '{self.name}' has no {' or '.join(DENOISERS)} folder.")


def parse_id(model: str) -> ModelId:
    """Reads a model id: `storybook`, `org/name`, `org/name@revision`, or a path that begins with ./ ../ / ~ or C:.

    A folder `org/name` in the working directory never shadows the hub. Raises SettingsError.
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


def find_model(model: str, *, offline: bool = False) -> ModelFolder:
    """Returns where a model lies, downloading a hub id that is not here unless `offline`.

    Raises SettingsError for an id that is none, ModelNotFound.
    """
    wanted = parse_id(model)
    if wanted.kind == "hub":
        return ModelFolder(model, _from_hub(wanted, offline, FETCHED), "hub")
    path = _folder_of(wanted)
    if not (path / "model_index.json").is_file():
        what = "is missing from this installation" if wanted.kind == "bundled" else "is no diffusers model folder"
        raise ModelNotFound(f"Model '{model[:200]}' {what}: no model_index.json in it.", field="model")
    return ModelFolder(model, path, wanted.kind)


def find_clip(model: str, *, offline: bool = False) -> ModelFolder:
    """Returns where a CLIP lies: a model folder's own, a folder as transformers writes it, or a hub id to download.

    Raises SettingsError for an id that is none, ModelNotFound.
    """
    wanted = parse_id(model)
    if wanted.kind == "hub":
        return ModelFolder(model, _from_hub(wanted, offline, FETCHED_OF_A_CLIP), "hub")
    path = _folder_of(wanted)
    for folder in (path / "clip", path):
        if (folder / "config.json").is_file():
            return ModelFolder(model, folder, wanted.kind)
    raise ModelNotFound(f"Model '{model[:200]}' is no CLIP folder: no config.json in it.", field="model")


def _folder_of(wanted: ModelId) -> Path:
    return BUNDLED[wanted.name] if wanted.kind == "bundled" else Path(wanted.name).expanduser()


def list_models() -> list[ModelFolder]:
    """Returns the models on this machine: the bundled ones and the text-to-image folders in the hub's cache."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    here = [
        ModelFolder(name, path, "bundled") for name, path in BUNDLED.items() if (path / "model_index.json").is_file()
    ]
    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return here
    newest = [(repo.repo_id, max(repo.revisions, key=lambda r: r.last_modified)) for repo in repos if repo.revisions]
    cached = [ModelFolder(name, revision.snapshot_path, "hub") for name, revision in newest]
    return here + sorted((m for m in cached if (m.path / "model_index.json").is_file()), key=lambda m: m.name)


def _from_hub(wanted: ModelId, offline: bool, fetched: list[str]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    offline = offline or constants.HF_HUB_OFFLINE
    try:
        folder = snapshot_download(
            wanted.name,
            revision=wanted.revision,
            local_files_only=offline,
            allow_patterns=fetched,
            ignore_patterns=NOT_FETCHED,
        )
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        why = "is not on this machine, and clipgen is offline" if offline else "is not here and the hub is out of reach"
        raise ModelNotFound(f"Model '{wanted.name}' {why}.", field="model") from None
    except HfHubHTTPError as error:
        raise ModelNotFound(
            f"Model '{wanted.name}' cannot be had: {str(error).splitlines()[0]}", field="model"
        ) from None
    return Path(folder)
