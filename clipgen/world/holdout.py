"""Held-out cells: combinations that no training image contains, decided by a hash of their names.

A cell is a tuple such as ("pair", "cat", "rabbit"), ("scene", "fox", "beach"), ("colour", "penguin", "red"),
("count", "lion", "4"), ("style", "cat", "pixel art") or ("role", "left", "fox", "rabbit"). The generator, the CLIPs,
the captioner and the autoencoder are trained without the held-out cells. The judges of the benchmark are trained with
them.
"""

from __future__ import annotations

import hashlib

SHARE = 0.10
VERSION = "clipgen-holdout-v1"


def u(*key: str) -> float:
    """Returns a fixed number in [0, 1) for a key: the first 8 bytes of the SHA-256 of its parts."""
    digest = hashlib.sha256("\x1f".join((VERSION, *key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out(*key: str) -> bool:
    """Returns whether a cell never occurs in training.

    A role ("role", "left", a, b) is held out only if its number is smaller than that of ("role", "left", b, a), so
    every pair is trained in at least one direction.
    """
    if key[0] == "role":
        kind, direction, subject, other = key
        return u(*key) < min(SHARE, u(kind, direction, other, subject))
    return u(*key) < SHARE


def pair(a: str, b: str) -> tuple[str, str, str]:
    """Returns the cell of two concepts in one image, in code-point order."""
    return ("pair", a, b) if a < b else ("pair", b, a)
