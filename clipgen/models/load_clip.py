"""Loads any CLIP or SigLIP as an encoder: to guide, to score, to judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.models.find import ModelFolder, find_clip
from clipgen.models.header import MAX_TOKENIZER, read_json
from clipgen.models.layout import NetworkSpec
from clipgen.models.load import load_networks
from clipgen.models.network import check_network
from clipgen.models.read_tokenizer import read_tokenizer

if TYPE_CHECKING:
    import torch

    from clipgen.clip.encoder import ClipEncoder

# A config's model_type -> the class of transformers. SigLIP 2 is a siglip, its variant for any aspect ratio a siglip2.
CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
PLAIN_DATA = ("vocab.json", "tokenizer.json")  # their keys are words


def load_encoder(model: str, device: torch.device, *, offline: bool = False) -> ClipEncoder:
    """Returns a CLIP in float32: the one that a model folder brings, a transformers folder, or a hub id.

    The files pass the same checks as a model's. Raises SettingsError, ModelNotFound, ModelError, OutOfMemory.
    """
    import torch

    from clipgen.clip.encoder import ClipEncoder

    found = find_clip(model, offline=offline)
    kind = str(read_json(found.path / "config.json").get("model_type"))
    if kind not in CLASSES:
        raise ModelError(f"Model '{found.name[:200]}' is of the kind '{kind[:60]}'. Works: {', '.join(CLASSES)}.")
    _check_jsons(found.path)
    network = check_network(found.path, NetworkSpec((("transformers", CLASSES[kind]),), full_precision=True))
    filled = load_networks(found.name, {"clip": network}, device, torch.float32)["clip"]
    return ClipEncoder(_shown(found), filled, _tokenizer(found.path, kind), _preprocessor(found.path))


def _shown(found: ModelFolder) -> str:
    """Returns a CLIP's name as records carry it: `org/name`, a folder's own name, `storybook/clip`."""
    name = found.name if found.kind == "hub" else Path(found.name).name
    return name if found.kind == "hub" or found.path.name == name else f"{name}/clip"


def _check_jsons(folder: Path) -> None:
    for path in sorted(folder.glob("*.json")):
        read_json(path, most=MAX_TOKENIZER, keys_are_data=path.name in PLAIN_DATA)


def _preprocessor(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    return read_json(path) if path.is_file() else {}


def _tokenizer(folder: Path, kind: str) -> Any:
    """Reads CLIP's tokenizer by its class and any SigLIP's from tokenizer.json alone, which needs no sentencepiece."""
    import transformers

    reader = transformers.CLIPTokenizer if kind == "clip" else transformers.PreTrainedTokenizerFast
    if kind != "clip" and not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder.name} has no tokenizer.json.")
    return read_tokenizer(reader, folder, f"{folder.name} has a tokenizer that")
