"""Finds the folder or file of a model, a CLIP or a VAE: a bundled one, a local one, or one of the hub."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from clipgen.errors import ClipgenError, ModelError, ModelNotFound
from clipgen.models.header import PICKLES, weight_files
from clipgen.models.hub import download
from clipgen.models.hub_files import clip_files, has_vocabulary, vae_files
from clipgen.models.ids import BUNDLED, ModelFolder, ModelId, cached_folder, parse_id

# CLIPs that score the images of models without one, if they are on this machine; the first of them is used.
DEFAULT_CLIPS = ("openai/clip-vit-large-patch14", "openai/clip-vit-base-patch16", "openai/clip-vit-base-patch32")


def bundled_model(name: str = "storybook") -> Path:
    """Returns the folder of a bundled model, in diffusers' layout; raises ModelNotFound for an unknown name."""
    if name not in BUNDLED:
        raise ModelNotFound(f"There is no bundled model '{name[:200]}'. Bundled: {', '.join(BUNDLED)}.", field="model")
    return BUNDLED[name]


def _check_exists(model_id: ModelId, path: Path) -> None:
    """Raises ModelNotFound if the folder that a user named does not exist."""
    if model_id.kind == "folder" and not path.is_dir():
        raise ModelNotFound(f"There is no folder '{model_id.name[:200]}'.", field="model")


def find_model(model: str) -> ModelFolder:
    """Returns a model that is on this machine; nothing is downloaded (`families.fetch.fetch_model` does).

    Raises SettingsError for an invalid name, ModelNotFound, and ModelError for a pickle.
    """
    model_id = parse_id(model)
    if model_id.kind == "hub":
        return ModelFolder(model, cached_folder(model_id), "hub")
    if model_id.kind == "file":
        file = find_weight_file(model)
        return ModelFolder(model, file.with_suffix(""), "file", file)
    path = _local_folder(model_id)
    _check_exists(model_id, path)
    if not (path / "model_index.json").is_file():
        problem = (
            "is missing from this installation" if model_id.kind == "bundled" else "is not a diffusers model folder"
        )
        raise ModelNotFound(f"Model '{model[:200]}' {problem}: it has no model_index.json.", field="model")
    return ModelFolder(model, path, model_id.kind)


def find_weight_file(name: str) -> Path:
    """Returns the path of a single file of weights; raises ModelNotFound, and ModelError for a pickle."""
    path = Path(name).expanduser()
    if path.suffix.lower() in PICKLES:
        raise ModelError(f"'{path.name}' is a pickle, which can run code: convert it to .safetensors.", field="model")
    if not path.is_file():
        raise ModelNotFound(f"There is no file '{name[:200]}'.", field="model")
    return path


def find_clip(model: str, *, offline: bool = False) -> ModelFolder:
    """Returns the folder of a CLIP: the `clip` folder of a model, a transformers folder, or a hub id to download.

    Raises SettingsError for an invalid name, and ModelNotFound.
    """
    model_id = parse_id(model)
    if model_id.kind == "hub":
        return ModelFolder(model, cached_folder(model_id) if offline else download(model_id, clip_files), "hub")
    if model_id.kind == "file":
        raise ModelNotFound(f"'{model[:200]}' is not a CLIP: it needs a folder with a config.json.", field="model")
    path = _local_folder(model_id)
    _check_exists(model_id, path)
    for folder in (path / "clip", path):
        if (folder / "config.json").is_file():
            return ModelFolder(model, folder, model_id.kind)
    raise ModelNotFound(f"Model '{model[:200]}' is not a CLIP folder: it has no config.json.", field="model")


def find_vae(name: str, *, offline: bool = False) -> ModelFolder:
    """Returns a VAE: a folder with a config.json, the `vae` folder of a model, a single file, or a hub id.

    Raises SettingsError for an invalid name, ModelNotFound, and ModelError for a pickle; all name the field vae.
    """
    try:
        model_id = parse_id(name)
        if model_id.kind == "file":
            file = find_weight_file(name)
            return ModelFolder(name, file.with_suffix(""), "file", file)
        if model_id.kind == "hub":
            path = cached_folder(model_id) if offline else download(model_id, vae_files)
        else:
            path = _local_folder(model_id)
        _check_exists(model_id, path)
    except ClipgenError as error:
        raise type(error)(f"vae: {error}", field="vae") from error
    for folder in (path / "vae", path):
        if (folder / "config.json").is_file():
            return ModelFolder(name, folder, model_id.kind)
    raise ModelNotFound(f"'{name[:200]}' is not a VAE folder: it has no config.json.", field="vae")


def default_clip() -> str | None:
    """Returns the first of DEFAULT_CLIPS that is in the hub cache with weights and tokenizer, None if none is."""
    for name in DEFAULT_CLIPS:
        with suppress(ModelNotFound, ModelError):
            path = find_clip(name, offline=True).path
            if weight_files(path) and has_vocabulary(file.name for file in path.iterdir()):
                return name
    return None


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
