"""Reads safetensors headers and JSON configs of untrusted models, and finds the weight files of a component."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from clipgen.errors import ModelError
from clipgen.image_file.strict_json import depth_of

MAX_HEADER = 10 * 2**20  # bytes
MAX_TENSORS = 20_000
MAX_CONFIG = 2**20  # bytes
MAX_TOKENIZER = 40 * 2**20  # bytes
MAX_NESTING = 20
MAX_AXES = 8
MAX_DIGITS = 20
FORBIDDEN_KEYS = frozenset({"auto_map", "_attn_implementation_internal"})
BYTES_OF = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
STEMS = ("diffusion_pytorch_model", "model")
VARIANTS = ("", ".fp16")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")


@dataclass(frozen=True)
class Entry:
    """One tensor as a safetensors header lists it."""

    dtype: str
    shape: tuple[int, ...]


def read_json(path: Path, *, limit: int = MAX_CONFIG, any_keys: bool = False) -> dict[str, Any]:
    """Reads a JSON object of at most `limit` bytes and 20 levels, without duplicate keys or keys that load code.

    With `any_keys` (for vocabularies) keys are not checked. Raises ModelError.
    """
    label = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        raise ModelError(f"{label} is missing.")
    if path.stat().st_size > limit:
        raise ModelError(f"{label} is larger than {limit:,} bytes.")
    return parse_json(path.read_bytes(), label, any_keys=any_keys)


def parse_json(data: bytes, label: str, *, any_keys: bool = False) -> dict[str, Any]:
    """Parses a JSON object within the limits of `read_json`; raises ModelError that begins with `label`."""
    try:
        text = data.decode()
        if depth_of(text) > MAX_NESTING:
            raise ModelError(f"{label} is nested deeper than {MAX_NESTING} levels.")
        value = json.loads(text, object_pairs_hook=dict if any_keys else _checked_keys, parse_int=_integer)
    except ValueError as error:
        raise ModelError(f"{label} is broken: {error}.") from None
    if not isinstance(value, dict):
        raise ModelError(f"{label} is not a JSON object.")
    return value


def _checked_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise ValueError("a key occurs twice")
    if bad := FORBIDDEN_KEYS & keys.keys():
        raise ValueError(f"'{min(bad)}' would load foreign code")
    return keys


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of more than {MAX_DIGITS} digits")
    return int(digits)


def read_header(path: Path) -> dict[str, Entry]:
    """Returns the tensors of a safetensors file after checking that their byte ranges fill the file exactly.

    Raises ModelError for truncated or padded files, overlapping tensors, too large headers and unknown dtypes.
    """
    label = f"{path.parent.name}/{path.name}"
    header, size, length = _parse_header(path, label)
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise ModelError(f"{label} has more than {MAX_TENSORS:,} tensors.")
    spans = [(*_span(label, name, value), name) for name, value in header.items()]
    end = 0
    for start, stop, name in sorted(spans):
        if start != end:
            raise ModelError(f"{label}: the bytes of '{name[:80]}' do not follow the tensor before it.")
        end = stop
    if 8 + length + end != size:
        raise ModelError(f"{label} does not match its header: {8 + length + end:,} bytes listed, {size:,} in the file.")
    return {name: Entry(value["dtype"], tuple(value["shape"])) for name, value in header.items()}


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the texts in `__metadata__` of a safetensors file, {} if it has none; raises ModelError."""
    header, _, _ = _parse_header(path, f"{path.parent.name}/{path.name}")
    metadata = header.get("__metadata__")
    return {k: v for k, v in metadata.items() if isinstance(v, str)} if isinstance(metadata, dict) else {}


def _parse_header(path: Path, label: str) -> tuple[dict[str, Any], int, int]:
    """Returns the header of a safetensors file as JSON, and the sizes of the file and of the header in bytes."""
    with path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER, size - 8):
            raise ModelError(f"{label} is not a safetensors file, or is truncated.")
        return parse_json(file.read(length), label), size, length


def _span(label: str, name: str, value: Any) -> tuple[int, int]:
    """Returns the byte range of one tensor; raises ModelError unless dtype, shape and range agree."""
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)]}:
            is_valid = len(shape) <= MAX_AXES and all(type(side) is int and side >= 0 for side in shape)
            if is_valid and dtype in BYTES_OF and start >= 0 and stop - start == BYTES_OF[dtype] * prod(shape):
                return start, stop
    raise ModelError(f"{label}: dtype, shape and bytes of '{name[:80]}' do not agree.")


def weight_files(folder: Path) -> tuple[Path | None, list[Path]]:
    """Returns the index file (None if the weights are one file) and the safetensors files of a component.

    Raises ModelError if there are none; for pickles it says what to do.
    """
    for variant in VARIANTS:
        for stem in STEMS:
            single = folder / f"{stem}{variant}.safetensors"
            index = folder / f"{stem}.safetensors.index{variant}.json"
            if single.is_file():
                return None, [single]
            if index.is_file():
                return index, _shards(index)
    if pickles := sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES):
        raise ModelError(f"{folder.name}/{pickles[0]} is a pickle, which can run code: convert it to .safetensors.")
    raise ModelError(f"{folder.name} has no .safetensors file.")


def _shards(index: Path) -> list[Path]:
    names = read_json(index, limit=MAX_HEADER).get("weight_map")
    if not isinstance(names, dict) or not names or len(names) > MAX_TENSORS:
        raise ModelError(f"{index.parent.name}/{index.name} names no weights.")
    shards = sorted({str(name) for name in names.values()})
    for name in shards:
        if not _SHARD.fullmatch(name) or not (index.parent / name).is_file():
            raise ModelError(
                f"{index.parent.name}/{index.name} names '{name[:80]}', which is not a file in its folder."
            )
    return [index.parent / name for name in shards]


def read_headers(files: list[Path]) -> dict[str, Entry]:
    """Returns the tensors in all files of a component; raises ModelError if two files hold the same tensor."""
    entries: dict[str, Entry] = {}
    for path in files:
        header = read_header(path)
        if duplicates := entries.keys() & header.keys():
            raise ModelError(f"{path.parent.name}/{path.name}: '{min(duplicates)}' is in two files.")
        entries |= header
    return entries
