"""Which files of a hub repository are needed, by the list of their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from clipgen.errors import ModelError
from clipgen.models.header import PICKLES, STEMS
from clipgen.models.hub import ReadJson
from clipgen.models.layout import ClassRef, Layout, encoder_of

TOKENIZER_FILES = (
    *("tokenizer_config.json", "tokenizer.json", "vocab.json", "merges.txt", "spiece.model"),
    *("special_tokens_map.json", "added_tokens.json"),
)
ROOT_FILES = ("model_index.json", "clipgen.json", "SHA256SUMS")
CLIP_FILES = ("config.json", "preprocessor_config.json", "caption_features.safetensors")
OWN_FOLDERS = ("clip", "latent_head", "captioner", "coca", "judge")  # of models made by clipgen: taken whole
OWN_SUFFIXES = (".json", ".txt", ".safetensors")


def model_files(
    names: Collection[str], index: Mapping[str, Any], layout: Layout, class_refs: Mapping[str, ClassRef], half: bool
) -> list[str]:
    """Returns the files of a pipeline that passed `check_index`.

    `half`: the model runs in float16, so that fp16 weights are preferred. Raises ModelError if weights or a
    tokenizer's vocabulary are missing.
    """
    files = _present(names, ROOT_FILES)
    files += _present(names, ["scheduler/scheduler_config.json"])
    for name in class_refs:
        files += [] if name in OWN_FOLDERS else network_files(names, name, half)
    for name in layout.tokenizers:
        files += tokenizer_files(names, name) if encoder_of(name) in class_refs else []
    for name, component in layout.config_components.items():
        files += _present(names, [f"{name}/{component.file}"])
    own = tuple(f"{folder}/" for folder in OWN_FOLDERS)
    return files + [name for name in names if name.startswith(own) and name.endswith(OWN_SUFFIXES)]


def network_files(names: Collection[str], folder: str, half: bool) -> list[str]:
    """Returns config and weights of a network in a folder, "" for the root; raises ModelError without weights."""
    prefix = f"{folder}/" if folder else ""
    for variant in (".fp16", "") if half else ("", ".fp16"):
        for stem in STEMS:
            single, index = f"{prefix}{stem}{variant}.safetensors", f"{prefix}{stem}.safetensors.index{variant}.json"
            if single in names:
                return [f"{prefix}config.json", single]
            if index in names:
                shard = re.compile(re.escape(prefix + stem + variant) + r"-\d+-of-\d+\.safetensors")
                return [f"{prefix}config.json", index, *(name for name in names if shard.fullmatch(name))]
    label = folder or "the repository"
    if pickles := sorted(n for n in names if n.startswith(prefix) and n.endswith(PICKLES)):
        raise ModelError(f"{label} has only pickles ({pickles[0]}), which can run code, and no .safetensors file.")
    raise ModelError(f"{label} has no .safetensors file.")


def tokenizer_files(names: Collection[str], folder: str) -> list[str]:
    """Returns the files of a tokenizer in a folder, "" for the root; raises ModelError without a vocabulary."""
    prefix = f"{folder}/" if folder else ""
    files = _present(names, [prefix + file for file in TOKENIZER_FILES])
    if not has_vocabulary(file.removeprefix(prefix) for file in files):
        raise ModelError(f"{folder or 'The tokenizer'} has no vocabulary (tokenizer.json, vocab.json or spiece.model).")
    return files


def has_vocabulary(files: Iterable[str]) -> bool:
    """Tells whether a tokenizer's files include a vocabulary."""
    present = set(files)
    return bool(present & {"tokenizer.json", "spiece.model"}) or present >= {"vocab.json", "merges.txt"}


def clip_files(names: Collection[str], read: ReadJson) -> list[str]:
    """Returns the files of a CLIP or SigLIP at the root of a repository, in float32 if there is a choice."""
    return [*_present(names, CLIP_FILES), *network_files(names, "", False)[1:], *tokenizer_files(names, "")]


def vae_files(names: Collection[str], read: ReadJson) -> list[str]:
    """Returns the files of a VAE: in the folder `vae` of a model's repository, or at the root."""
    return network_files(names, "vae" if "vae/config.json" in names else "", False)


def _present(names: Collection[str], wanted: Iterable[str]) -> list[str]:
    return [name for name in wanted if name in names]
