"""Downloads models of the supported families from the hub; an unsupported repository is refused before that."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from clipgen.device import pick_device, pick_dtype
from clipgen.errors import ModelError
from clipgen.families import LAYOUTS
from clipgen.models import ModelFolder, find_model, parse_id
from clipgen.models.hub import Choose, ReadJson, download
from clipgen.models.hub_files import clip_files, model_files, network_files, tokenizer_files, vae_files
from clipgen.models.ids import is_offline
from clipgen.models.load_clip import CLASSES
from clipgen.models.preflight import check_index
from clipgen.models.single_file import SingleFile


def fetch_model(model: str, device: str = "auto", dtype: str = "auto", *, offline: bool = False) -> ModelFolder:
    """Returns a model; downloads a hub id, and what a single file lacks, unless `offline`.

    Weights in float16 are downloaded if the model runs in float16 and the repository has them. Raises SettingsError,
    ModelNotFound, and ModelError for a repository that is not supported.
    """
    if offline or is_offline():
        return find_model(model)
    model_id = parse_id(model)
    if model_id.kind == "hub":
        download(model_id, _Choice(_runs_in_half(device, dtype)).model)
    source = find_model(model)
    if source.weights is not None:
        _complete(SingleFile(source.weights, source.path), _runs_in_half(device, dtype))
    return source


def fetch_any(name: str) -> Path:
    """Downloads the model, the CLIP or the VAE of a hub id and returns its folder; raises as `fetch_model`."""
    return download(parse_id(name), _Choice(_runs_in_half("auto", "auto")).any)


def _runs_in_half(device: str, dtype: str) -> bool:
    import torch

    return pick_dtype(dtype, pick_device(device)) == torch.float16


class _Choice:
    """Chooses the files of a repository; `half` prefers weights in float16."""

    def __init__(self, half: bool) -> None:
        self.half = half

    def model(self, names: Collection[str], read: ReadJson) -> list[str]:
        """Chooses the files of a pipeline; raises ModelError if it is not supported."""
        if "model_index.json" not in names:
            single = next((name for name in sorted(names) if name.endswith((".safetensors", ".gguf"))), None)
            hint = f" Download '{single}' and use it with --model FILE." if single else ""
            raise ModelError(
                f"The repository is not a diffusers model: it has no model_index.json.{hint}", field="model"
            )
        index = read("model_index.json")
        folders = {name.partition("/")[0] for name in names if "/" in name}
        layout, class_refs = check_index(index, LAYOUTS, folders.__contains__)
        return model_files(names, index, layout, class_refs, self.half)

    def any(self, names: Collection[str], read: ReadJson) -> list[str]:
        """Chooses the files of a pipeline, a CLIP or a VAE."""
        if "model_index.json" in names or "config.json" not in names:
            return self.model(names, read)
        config = read("config.json")
        if config.get("model_type") in CLASSES:
            return clip_files(names, read)
        if str(config.get("_class_name")).startswith("Autoencoder"):
            return vae_files(names, read)
        return self.model(names, read)

    def component(self, folder: str, is_tokenizer: bool) -> Choose:
        """Returns the choice of the files of one tokenizer or network, in a folder or at the root ("")."""

        def choose(names: Collection[str], read: ReadJson) -> list[str]:
            return tokenizer_files(names, folder) if is_tokenizer else network_files(names, folder, self.half)

        return choose


def _complete(file: SingleFile, half: bool) -> None:
    """Downloads the tokenizers and networks that a single file lacks, component by component."""
    for repository, folder, is_tokenizer in file.missing():
        download(parse_id(repository), _Choice(half).component(folder, is_tokenizer))
