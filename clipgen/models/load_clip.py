"""Loads any CLIP or SigLIP as an encoder, for guidance and for scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.models.find import find_clip
from clipgen.models.header import MAX_TOKENIZER, read_json
from clipgen.models.ids import ModelFolder
from clipgen.models.layout import NetworkSpec
from clipgen.models.load import load_networks, read_tokenizer
from clipgen.models.network import check_network

if TYPE_CHECKING:
    import torch

    from clipgen.clip.encoder import ClipEncoder

# model_type -> transformers class. SigLIP 2 has the model_type siglip, its NaFlex variant siglip2.
CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
VOCABULARIES = ("vocab.json", "tokenizer.json")  # their keys are words, not options


def load_encoder(model: str, device: torch.device, *, offline: bool = False) -> ClipEncoder:
    """Returns a CLIP in float32 from a model folder that includes one, a transformers folder, or a hub id.

    The files pass the same checks as those of a model. Raises SettingsError, ModelNotFound, ModelError, OutOfMemory.
    """
    import torch

    from clipgen.clip.encoder import ClipEncoder

    source = find_clip(model, offline=offline)
    model_type = str(read_json(source.path / "config.json").get("model_type"))
    if model_type not in CLASSES:
        raise ModelError(
            f"Model '{source.name[:200]}' has the model_type '{model_type[:60]}'. Works: {', '.join(CLASSES)}."
        )
    for path in sorted(source.path.glob("*.json")):
        read_json(path, limit=MAX_TOKENIZER, any_keys=path.name in VOCABULARIES)
    network = check_network(source.path, NetworkSpec((("transformers", CLASSES[model_type]),), full_precision=True))
    loaded = load_networks(source.name, {"clip": network}, device, torch.float32)["clip"]
    preprocessor = source.path / "preprocessor_config.json"
    return ClipEncoder(
        _display_name(source),
        loaded,
        _tokenizer(source.path, model_type),
        read_json(preprocessor) if preprocessor.is_file() else {},
    )


def _display_name(source: ModelFolder) -> str:
    """Returns a CLIP's name as records store it: `org/name`, the name of its folder, or `storybook/clip`."""
    name = source.name if source.kind == "hub" else Path(source.name).name
    return name if source.kind == "hub" or source.path.name == name else f"{name}/clip"


def _tokenizer(folder: Path, model_type: str) -> Any:
    """Reads a CLIPTokenizer, or a SigLIP tokenizer from tokenizer.json alone, which does not need sentencepiece."""
    import transformers

    tokenizer_class = transformers.CLIPTokenizer if model_type == "clip" else transformers.PreTrainedTokenizerFast
    if model_type != "clip" and not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder.name} has no tokenizer.json.")
    return read_tokenizer(tokenizer_class, folder, f"The tokenizer of {folder.name}")
