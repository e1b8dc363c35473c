"""Hashes of texts and files, and seeds that are derived from texts."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(source: Path | str | bytes) -> str:
    """Returns the SHA-256 of a file (Path), a text or bytes as 64 hex digits; raises OSError."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    data = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source
    return hashlib.sha256(data).hexdigest()


def seed_from_text(text: str, size: int = 7) -> int:
    """Returns a seed of `size` bytes that depends on the text alone: its BLAKE2b hash, first byte most significant.

    The default of 7 bytes fits into a torch seed, which has 63 bits.
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "big")
