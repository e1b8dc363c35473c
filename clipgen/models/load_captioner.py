"""Loads what writes captions: the heads that a model folder brings beside its CLIP, or a BLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clipgen.errors import ModelError, ModelNotFound, SettingsError
from clipgen.models.find import ModelFolder, find_clip
from clipgen.models.header import MAX_TOKENIZER, read_json
from clipgen.models.layout import NetworkSpec
from clipgen.models.load import load_networks
from clipgen.models.load_clip import load_encoder
from clipgen.models.network import check_network
from clipgen.models.read_tokenizer import read_tokenizer

if TYPE_CHECKING:
    import torch

    from clipgen.captioning.clip_captioner import Captioner, CaptionHead
    from clipgen.clip.encoder import ClipEncoder

Kind = Literal["clipcap", "coca"]
HEAD_FOLDERS: dict[Kind, str] = {
    "clipcap": "captioner",
    "coca": "coca",
}  # beside a head's CLIP; who has both trained the first
LM_HEAD = {"decoder.lm_head.weight": "decoder.transformer.wte.weight"}
HEAD_SPECS: dict[Kind, NetworkSpec] = {
    "coca": NetworkSpec((("clipgen.captioning.coca", "Coca"),), required=False, full_precision=True, tied=LM_HEAD),
    "clipcap": NetworkSpec(
        (("clipgen.captioning.clipcap", "ClipCap"),), required=False, full_precision=True, tied=LM_HEAD
    ),
}
BLIP = "blip"
TIED = {
    "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
}


def load_captioner(model: str, device: torch.device, kind: str | None = None, *, offline: bool = False) -> Captioner:
    """Returns what writes captions in float32: a model's ClipCap or CoCa, the first that `kind` allows.

    A transformers folder or hub id may be a BLIP. Files are checked against their configs before a network is built.
    Raises SettingsError, ModelNotFound, ModelError, OutOfMemory.
    """
    found = find_clip(model, offline=offline)
    if read_json(found.path / "config.json").get("model_type") == BLIP:
        if kind is not None:
            raise SettingsError(f"model '{model[:200]}' is a BLIP, which is no '{kind}'", field="kind")
        return _blip(found, device)
    chosen = _choose(model, kinds_in(found.path), kind)
    from clipgen.captioning.clip_captioner import ClipCaptioner

    encoder = load_encoder(model, device, offline=offline)
    return ClipCaptioner(encoder, _head(found.name, home_of(found.path) / HEAD_FOLDERS[chosen], chosen, encoder))


def load_captioners(model: str, encoder: ClipEncoder) -> list[Captioner]:
    """Returns every head that a model brings, each on the same CLIP, which lies in that model."""
    from clipgen.captioning.clip_captioner import ClipCaptioner

    found = find_clip(model, offline=True)
    home = home_of(found.path)
    return [
        ClipCaptioner(encoder, _head(found.name, home / HEAD_FOLDERS[kind], kind, encoder))
        for kind in kinds_in(found.path)
    ]


def kinds_in(clip: Path) -> list[Kind]:
    """Returns the heads that lie beside a CLIP."""
    return [kind for kind, folder in HEAD_FOLDERS.items() if (home_of(clip) / folder).is_dir()]


def home_of(clip: Path) -> Path:
    """Returns the folder that heads lie in: the model's for the CLIP of a model, else the CLIP's own."""
    return clip.parent if (clip.parent / "model_index.json").is_file() else clip


def _choose(model: str, there: Sequence[Kind], kind: str | None) -> Kind:
    """Returns the head to be used of those that are there."""
    if kind is not None and kind not in HEAD_FOLDERS:
        raise SettingsError(f"Unknown kind '{kind[:60]}'. Works: {', '.join(HEAD_FOLDERS)}.", field="kind")
    chosen = next((name for name in there if kind in (None, name)), None)
    if chosen is None:
        what = "captioner" if kind is None else f"captioner of the kind {kind}"
        how = "" if kind in (None, "clipcap") else f" --kind {kind} --data FOLDER"
        raise ModelNotFound(f"Model '{model[:200]}' brings no {what}. To train one: clipgen train captioner{how}.")
    return chosen


def _head(model: str, folder: Path, kind: Kind, encoder: ClipEncoder) -> CaptionHead:
    """Returns a head whose sizes fit its own weights and the CLIP that it sits on; raises ModelError, OutOfMemory."""
    import torch

    network = check_network(folder, HEAD_SPECS[kind])
    head: CaptionHead = load_networks(model, {kind: network}, encoder.model.device, torch.float32)[kind]
    with torch.no_grad():
        seen = head.encode_images(encoder, torch.zeros(1, 3, encoder.image_size, encoder.image_size))
    if seen.shape[-1] != head.feature_size:
        raise ModelError(f"{folder.name} takes vectors of {head.feature_size} numbers, its CLIP gives {seen.shape[-1]}.")
    return head


def _blip(found: ModelFolder, device: torch.device) -> Captioner:
    import torch
    import transformers

    from clipgen.captioning.blip import BlipCaptioner

    for path in sorted(found.path.glob("*.json")):
        read_json(path, most=MAX_TOKENIZER, keys_are_data=path.name == "tokenizer.json")
    part = NetworkSpec((("transformers", "BlipForConditionalGeneration"),), full_precision=True, tied=TIED)
    network = load_networks(found.name, {BLIP: check_network(found.path, part)}, device, torch.float32)[BLIP]
    tokenizer = read_tokenizer(transformers.BertTokenizer, found.path, f"{found.path.name} has a tokenizer that")
    preprocessor = found.path / "preprocessor_config.json"
    return BlipCaptioner(network, tokenizer, read_json(preprocessor) if preprocessor.is_file() else {})
