"""Loads what writes captions: the heads that a model folder brings beside its CLIP, or a BLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clipgen.errors import ModelError, ModelNotFound, SettingsError
from clipgen.models.find import Found, find_clip
from clipgen.models.header import MAX_TOKENIZER, read_json
from clipgen.models.layout import Part
from clipgen.models.load import load_networks
from clipgen.models.load_clip import load_encoder
from clipgen.models.network import check_network
from clipgen.models.read_tokenizer import read_tokenizer

if TYPE_CHECKING:
    import torch

    from clipgen.captioning.base import Head, Writer
    from clipgen.clip.encoder import ClipEncoder

Kind = Literal["clipcap", "coca"]
FOLDERS: dict[Kind, str] = {
    "clipcap": "captioner",
    "coca": "coca",
}  # beside a head's CLIP; who has both trained the first
LM_HEAD = {"decoder.lm_head.weight": "decoder.transformer.wte.weight"}
HEADS: dict[Kind, Part] = {
    "coca": Part((("clipgen.captioning.coca", "Coca"),), required=False, full_precision=True, tied=LM_HEAD),
    "clipcap": Part((("clipgen.captioning.clipcap", "Captioner"),), required=False, full_precision=True, tied=LM_HEAD),
}
BLIP = "blip"
TIED = {
    "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
}


def load_captioner(model: str, device: torch.device, kind: str | None = None, *, offline: bool = False) -> Writer:
    """Returns what writes captions in float32: a model's ClipCap or CoCa, the first that `kind` allows.

    A transformers folder or hub id may be a BLIP. Files are held against their configs before a network is built.
    Raises SettingsError, ModelNotFound, ModelError, OutOfMemory.
    """
    found = find_clip(model, offline=offline)
    if read_json(found.path / "config.json").get("model_type") == BLIP:
        if kind is not None:
            raise SettingsError(f"model '{model[:200]}' is a BLIP, which is no '{kind}'", field="kind")
        return _blip(found, device)
    chosen = _choose(model, kinds_in(found.path), kind)
    from clipgen.captioning.base import ClipWriter

    encoder = load_encoder(model, device, offline=offline)
    return ClipWriter(encoder, _head(found.name, home_of(found.path) / FOLDERS[chosen], chosen, encoder))


def load_captioners(model: str, encoder: ClipEncoder) -> list[Writer]:
    """Returns every head that a model brings, each on the same CLIP, which lies in that model."""
    from clipgen.captioning.base import ClipWriter

    found = find_clip(model, offline=True)
    home = home_of(found.path)
    return [
        ClipWriter(encoder, _head(found.name, home / FOLDERS[kind], kind, encoder)) for kind in kinds_in(found.path)
    ]


def kinds_in(clip: Path) -> list[Kind]:
    """Returns the heads that lie beside a CLIP."""
    return [kind for kind, folder in FOLDERS.items() if (home_of(clip) / folder).is_dir()]


def home_of(clip: Path) -> Path:
    """Returns the folder that heads lie in: the model's for the CLIP of a model, else the CLIP's own."""
    return clip.parent if (clip.parent / "model_index.json").is_file() else clip


def _choose(model: str, there: Sequence[Kind], kind: str | None) -> Kind:
    """Returns the head to be used of those that are there."""
    if kind is not None and kind not in FOLDERS:
        raise SettingsError(f"Unknown kind '{kind[:60]}'. Works: {', '.join(FOLDERS)}.", field="kind")
    chosen = next((name for name in there if kind in (None, name)), None)
    if chosen is None:
        what = "captioner" if kind is None else f"captioner of the kind {kind}"
        how = "" if kind in (None, "clipcap") else f" --kind {kind} --data FOLDER"
        raise ModelNotFound(f"Model '{model[:200]}' brings no {what}. To train one: clipgen train captioner{how}.")
    return chosen


def _head(model: str, folder: Path, kind: Kind, encoder: ClipEncoder) -> Head:
    """Returns a head whose sizes fit its own weights and the CLIP that it sits on; raises ModelError, OutOfMemory."""
    import torch

    network = check_network(folder, HEADS[kind])
    head: Head = load_networks(model, {kind: network}, encoder.model.device, torch.float32)[kind]
    with torch.no_grad():
        seen = head.look(encoder, torch.zeros(1, 3, encoder.side, encoder.side))
    if seen.shape[-1] != head.width:
        raise ModelError(f"{folder.name} takes vectors of {head.width} numbers, its CLIP gives {seen.shape[-1]}.")
    return head


def _blip(found: Found, device: torch.device) -> Writer:
    import torch
    import transformers

    from clipgen.captioning.blip import BlipWriter

    for path in sorted(found.path.glob("*.json")):
        read_json(path, most=MAX_TOKENIZER, keys_are_data=path.name == "tokenizer.json")
    part = Part((("transformers", "BlipForConditionalGeneration"),), full_precision=True, tied=TIED)
    network = load_networks(found.name, {BLIP: check_network(found.path, part)}, device, torch.float32)[BLIP]
    tokenizer = read_tokenizer(transformers.BertTokenizer, found.path, f"{found.path.name} has a tokenizer that")
    preprocessor = found.path / "preprocessor_config.json"
    return BlipWriter(network, tokenizer, read_json(preprocessor) if preprocessor.is_file() else {})
