"""The cells of the world that no training image may show, decided by a hash of their names alone.

Everything that is trained obeys them (generator, CLIPs, captioner, autoencoder); the judges of the bench are exempt.
"""

from __future__ import annotations

import hashlib

SHARE = 0.10
VERSION = "clipgen-holdout-v1"


def u(*key: str) -> float:
    """Maps a key to a fixed number in [0, 1): the first 8 bytes of a SHA-256 over its parts."""
    digest = hashlib.sha256("\x1f".join((VERSION, *key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out(*key: str) -> bool:
    """Tells whether a cell such as ("scene", "fox", "beach") never occurs in training.

    A role ("role", "left", a, b) is held out only if it has the smaller number of the two directions, so that a pair
    can always be seen in one of them.
    """
    if key[0] == "role":
        kind, direction, subject, other = key
        return u(*key) < min(SHARE, u(kind, direction, other, subject))
    return u(*key) < SHARE


def pair(a: str, b: str) -> tuple[str, str, str]:
    """Names the cell of two concepts seen together, in code-point order."""
    return ("pair", a, b) if a < b else ("pair", b, a)
