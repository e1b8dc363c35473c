"""Loads captioners: the heads in a model folder (ClipCap, CoCa) with their CLIP, or a BLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clipgen.errors import ModelError, ModelNotFound, SettingsError
from clipgen.models.find import find_clip
from clipgen.models.header import MAX_TOKENIZER, read_json
from clipgen.models.ids import ModelFolder
from clipgen.models.layout import NetworkSpec
from clipgen.models.load import load_networks, read_tokenizer
from clipgen.models.load_clip import load_encoder
from clipgen.models.network import check_network

if TYPE_CHECKING:
    import torch

    from clipgen.captioning.clip_captioner import Captioner, CaptionHead
    from clipgen.clip.encoder import ClipEncoder

Kind = Literal["clipcap", "coca"]
# The folder of each head; a model with both uses the first by default.
HEAD_FOLDERS: dict[Kind, str] = {"clipcap": "captioner", "coca": "coca"}
LM_HEAD = {"decoder.lm_head.weight": "decoder.transformer.wte.weight"}
COCA, CLIPCAP = ("clipgen.captioning.coca", "Coca"), ("clipgen.captioning.clipcap", "ClipCap")
HEAD_SPECS: dict[Kind, NetworkSpec] = {
    "coca": NetworkSpec((COCA,), required=False, full_precision=True, tied=LM_HEAD),
    "clipcap": NetworkSpec((CLIPCAP,), required=False, full_precision=True, tied=LM_HEAD),
}
BLIP = "blip"
BLIP_TIED = {
    "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
}


def load_captioner(model: str, device: torch.device, kind: str | None = None, *, offline: bool = False) -> Captioner:
    """Returns a captioner in float32: a model's ClipCap or CoCa (`kind`, or the first it has), or a BLIP.

    Files are checked against their configs before a network is built. Raises SettingsError, ModelNotFound, ModelError
    and OutOfMemory.
    """
    source = find_clip(model, offline=offline)
    if read_json(source.path / "config.json").get("model_type") == BLIP:
        if kind is not None:
            raise SettingsError(f"model '{model[:200]}' is a BLIP and has no captioner of kind '{kind}'", field="kind")
        return _load_blip(source, device)
    chosen = _choose(model, head_kinds(source.path), kind)
    from clipgen.captioning.clip_captioner import ClipCaptioner

    encoder = load_encoder(model, device, offline=offline)
    folder = _model_folder(source.path) / HEAD_FOLDERS[chosen]
    return ClipCaptioner(encoder, _load_head(source.name, folder, chosen, encoder))


def load_captioners(model: str, encoder: ClipEncoder) -> list[Captioner]:
    """Returns a captioner for every head of a model, all with the same encoder, which is the model's CLIP."""
    from clipgen.captioning.clip_captioner import ClipCaptioner

    source = find_clip(model, offline=True)
    folder = _model_folder(source.path)
    return [
        ClipCaptioner(encoder, _load_head(source.name, folder / HEAD_FOLDERS[kind], kind, encoder))
        for kind in head_kinds(source.path)
    ]


def head_kinds(clip_folder: Path) -> list[Kind]:
    """Returns the kinds of the heads that belong to a CLIP folder."""
    return [kind for kind, folder in HEAD_FOLDERS.items() if (_model_folder(clip_folder) / folder).is_dir()]


def _model_folder(clip_folder: Path) -> Path:
    """Returns the folder that contains the heads: the model's if the CLIP is in one, else the CLIP's own."""
    return clip_folder.parent if (clip_folder.parent / "model_index.json").is_file() else clip_folder


def _choose(model: str, available: Sequence[Kind], kind: str | None) -> Kind:
    if kind is not None and kind not in HEAD_FOLDERS:
        raise SettingsError(f"Unknown kind '{kind[:60]}'. Works: {', '.join(HEAD_FOLDERS)}.", field="kind")
    chosen = next((name for name in available if kind in (None, name)), None)
    if chosen is None:
        what = "captioner" if kind is None else f"captioner of kind {kind}"
        options = "" if kind in (None, "clipcap") else f" --kind {kind} --data FOLDER"
        raise ModelNotFound(f"Model '{model[:200]}' has no {what}. To train one: clipgen train captioner{options}.")
    return chosen


def _load_head(model: str, folder: Path, kind: Kind, encoder: ClipEncoder) -> CaptionHead:
    """Returns a head after checking that it fits its weights and the encoder; raises ModelError, OutOfMemory."""
    import torch

    network = check_network(folder, HEAD_SPECS[kind])
    head: CaptionHead = load_networks(model, {kind: network}, encoder.model.device, torch.float32)[kind]
    with torch.no_grad():
        features = head.encode_images(encoder, torch.zeros(1, 3, encoder.image_size, encoder.image_size))
    if features.shape[-1] != head.feature_size:
        raise ModelError(
            f"{folder.name} expects features of size {head.feature_size}, its CLIP gives {features.shape[-1]}."
        )
    return head


def _load_blip(source: ModelFolder, device: torch.device) -> Captioner:
    import torch
    import transformers

    from clipgen.captioning.blip import BlipCaptioner

    for path in sorted(source.path.glob("*.json")):
        read_json(path, limit=MAX_TOKENIZER, any_keys=path.name == "tokenizer.json")
    spec = NetworkSpec((("transformers", "BlipForConditionalGeneration"),), full_precision=True, tied=BLIP_TIED)
    network = load_networks(source.name, {BLIP: check_network(source.path, spec)}, device, torch.float32)[BLIP]
    tokenizer = read_tokenizer(transformers.BertTokenizer, source.path, f"The tokenizer of {source.path.name}")
    preprocessor = source.path / "preprocessor_config.json"
    return BlipCaptioner(network, tokenizer, read_json(preprocessor) if preprocessor.is_file() else {})
