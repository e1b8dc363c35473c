"""The cells of the world that no training image may show, decided by a hash of their names alone.

Everything that is trained obeys them (generator, CLIPs, captioner, autoencoder); the judges of the bench are exempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipgen.train.world.scene import Scene

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
    return ("pair", *sorted((a, b)))  # type: ignore[return-value]


def cells(scene: Scene) -> Iterator[tuple[str, ...]]:
    """Yields every cell that a scene realises, read off its layout and not its caption."""
    for thing in scene.things:
        if thing.count > 1:
            yield ("count", thing.concept, str(thing.count))
        if thing.colour:
            yield ("colour", thing.concept, thing.colour)
        if not scene.is_plain:
            yield ("scene", thing.concept, scene.place)
        if scene.style != "picture book":
            yield ("style", thing.concept, scene.style)
    names = [thing.concept for thing in scene.things]
    for i, a in enumerate(names):
        yield from (pair(a, b) for b in names[i + 1 :])
    yield from (("role", *role) for role in scene.roles())
