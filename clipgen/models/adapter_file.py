"""Files that change a loaded model, LoRAs and textual inversions: found by path or name, and checked before loading."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from clipgen import home
from clipgen.errors import ModelError, ModelNotFound
from clipgen.hashing import sha256_of
from clipgen.models.header import PICKLES, Entry, read_header
from clipgen.settings.checks import names_path, printable

Kind = Literal["lora", "embedding"]  # the Settings field that names the file
LABELS: dict[Kind, str] = {"lora": "LoRA", "embedding": "embedding"}
MAX_BYTES: dict[Kind, int] = {"lora": 4 * 2**30, "embedding": 64 * 2**20}
SUFFIX = ".safetensors"
SHOWN = 20  # names in an error message


def folder_name(kind: Kind) -> str:
    """Returns the name of the folders with files of a kind: `loras` or `embeddings`."""
    return f"{kind}s"


def find_file(kind: Kind, name: str) -> Path:
    """Returns a file by its path, or by its name without suffix in the folders of its kind.

    Raises ModelNotFound, and ModelError for a pickle.
    """
    if names_path(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ModelNotFound(f"There is no {LABELS[kind]} file '{printable(name)}'.", field=kind)
        return path
    folders = home.adapter_folders(folder_name(kind))
    files = home.adapter_files(folder_name(kind))
    if name not in files:
        for pickle in (folder / f"{name}{suffix}" for folder in folders for suffix in PICKLES):
            if pickle.is_file():
                return pickle  # check_file refuses it
        names = sorted(files)
        listed = f" They hold: {', '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''}." if names else ""
        place = f"./{folder_name(kind)} or {folder_name(kind)} in the data folder"  # a server hides its own paths
        raise ModelNotFound(
            f"There is no {LABELS[kind]} '{printable(name)}' in {place}.{listed}", field=kind, allowed=names
        )
    return files[name]


def check_file(kind: Kind, path: Path) -> dict[str, Entry]:
    """Returns the tensors in the header of a file; raises ModelError unless it is a sound safetensors file."""
    label = f"{LABELS[kind]} '{printable(path.name)}'"
    if path.suffix.lower() in PICKLES:
        raise ModelError(f"{label} is a pickle, which can run code: convert it to .safetensors.", field=kind)
    if path.suffix.lower() != SUFFIX:
        raise ModelError(f"{label} is not a .safetensors file.", field=kind)
    if path.stat().st_size > MAX_BYTES[kind]:
        raise ModelError(f"{label} is larger than {MAX_BYTES[kind]:,} bytes.", field=kind)
    try:
        header = read_header(path)
    except ModelError as error:
        raise ModelError(f"{label}: {error}", field=kind) from error
    if not header:
        raise ModelError(f"{label} holds no tensor.", field=kind)
    return header


def digest_of(path: Path) -> str:
    """Returns the SHA-256 of a file, which is read again only if it has changed."""
    status = path.stat()
    return _digest(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(64)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_of(path)
