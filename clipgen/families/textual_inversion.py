"""Textual inversion: learned vectors that stand for a word of the prompt. Gal et al. 2022 (arXiv 2208.01618)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from clipgen.errors import ModelError
from clipgen.models.adapter_file import check_file
from clipgen.models.header import Entry
from clipgen.settings.checks import printable

if TYPE_CHECKING:
    from torch import Tensor

MAX_VECTORS = 75  # tokens of one context
XL_KEYS = ("clip_l", "clip_g")  # one tensor per text encoder
UNNAMED = ("emb_params", "*", *XL_KEYS)  # keys that are not the token of the embedding
MADE_FOR = {(768,): "Stable Diffusion 1", (1024,): "Stable Diffusion 2", (768, 1280): "Stable Diffusion XL"}


@dataclass(frozen=True, eq=False)
class Embedding:
    """A file of vectors [N, D] for each text encoder, with the words that stand for them and its SHA-256."""

    path: Path
    sha256: str
    names: tuple[str, ...]
    vectors: tuple[Tensor, ...]


def check_embedding(path: Path, widths: Sequence[int], model: str) -> None:
    """Checks that a file has vectors of the widths of a model's text encoders; raises ModelError."""
    _keys(path, check_file("embedding", path), widths, model)


@lru_cache(64)
def read_embedding(path: Path, sha256: str, widths: tuple[int, ...], model: str) -> Embedding:
    """Returns an embedding, named by its file and by the token that the file names; raises ModelError.

    `sha256` is that of the file, so that a changed file is read again.
    """
    import torch
    from safetensors.torch import load_file

    keys = _keys(path, check_file("embedding", path), widths, model)
    tensors = load_file(path)
    vectors = tuple(tensors[key].float().reshape(-1, tensors[key].shape[-1]) for key in keys)
    if not all(torch.isfinite(each).all() for each in vectors):
        raise _refused(path, "holds numbers that are not finite.")
    return Embedding(path, sha256, (path.stem, *(key for key in keys if key not in UNNAMED)), vectors)


def _keys(path: Path, header: Mapping[str, Entry], widths: Sequence[int], model: str) -> tuple[str, ...]:
    """Returns the keys of the tensors for the text encoders, in their order."""
    keys: tuple[str, ...] = XL_KEYS if set(XL_KEYS) <= header.keys() else tuple(header)
    shapes = [header[key].shape for key in keys]
    if any(len(shape) not in (1, 2) or not shape[-1] for shape in shapes) or (len(keys) > 1 and keys != XL_KEYS):
        raise _refused(path, f"is no embedding: it holds {', '.join(printable(key) for key in keys[:3])}.")
    counts = {shape[0] if len(shape) == 2 else 1 for shape in shapes}
    if not all(1 <= count <= MAX_VECTORS for count in counts) or len(counts) > 1:
        raise _refused(path, f"must have 1 to {MAX_VECTORS} vectors for each text encoder.")
    own = tuple(shape[-1] for shape in shapes)
    if own != tuple(widths):
        made_for = MADE_FOR.get(own, f"vectors of width {' and '.join(map(str, own))}")
        needs = " and ".join(map(str, widths))
        raise _refused(path, f"is made for {made_for}; the text encoders of model '{model}' have width {needs}.")
    return keys


def _refused(path: Path, reason: str) -> ModelError:
    return ModelError(f"Embedding '{printable(path.name)}' {reason}", field="embedding")
