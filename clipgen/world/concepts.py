"""The vocabulary of the world: the concepts of concepts.tsv, and its colours, places, styles, times and sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from clipgen.hashing import sha256_of

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
PLACES = (
    "snow", "forest", "beach", "night sky", "desert", "meadow", "sunset",
    "under the sea", "outer space", "rain", "mountains", "city street", "room", "table",
)  # fmt: skip
STYLES = ("picture book", "pixel art", "pencil sketch", "watercolour", "black and white", "neon")
TIMES = ("day", "night", "sunset")
SIZES = ("big", "small")


@dataclass(frozen=True)
class Concept:
    """A kind of thing that scenes show; one line of concepts.tsv.

    Attributes:
        name: Singular name.
        drawings: Its drawings: emoji, or names of drawings in painted.py.
        plural: Plural of the name.
        synonyms: Other names in the singular. Captions use them, so each must be true of every drawing.
        tier: 1 for the concepts that people ask for most, 2 for the rest of the small vocabulary, 3 for the large one.
        stance: Where it belongs: "ground", "sky", "water", "table" or "any".
        hues: Dominant hues of its drawings in the sets "noto" and "flat"; an empty string if there is none.
    """

    name: str
    drawings: tuple[str, ...]
    plural: str
    synonyms: tuple[str, ...]
    tier: int
    stance: str
    hues: tuple[str, str]

    def hue(self, art: str) -> str:
        """Returns the dominant hue of its drawings in a set; empty if there is none. It then cannot be recoloured."""
        return self.hues[art != "noto"]


def _table() -> str:
    return files("clipgen.world").joinpath("concepts.tsv").read_text("utf-8")


def _split_drawings(text: str) -> tuple[str, ...]:
    """Splits a string of emoji and bracketed names into drawings. Emoji joined by U+200D are one drawing."""
    return tuple(re.findall(r"\([^)]*\)|.\ufe0f?(?:\u200d.\ufe0f?)*", text))


def regular_plural(name: str) -> str:
    """Returns the plural of a name by the rules of English spelling."""
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


@cache
def concepts() -> dict[str, Concept]:
    """Returns every concept by its name, in the order of the table."""
    by_name: dict[str, Concept] = {}
    for line in _table().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        name, drawings, plural, synonyms, tier, stance, *hues = line.split("|")
        by_name[name] = Concept(
            name, _split_drawings(drawings), plural or regular_plural(name), tuple(filter(None, synonyms.split(","))),
            int(tier), stance, (hues[0], hues[1]),
        )  # fmt: skip
    return by_name


def drawn_hash(names: Iterable[str]) -> str:
    """Returns the SHA-256 of the columns that decide how concepts are drawn. Synonyms and plurals do not count."""
    columns = [(c.name, c.drawings, c.tier, c.stance, c.hues) for c in map(concepts().__getitem__, names)]
    return sha256_of(repr(columns))


def vocabulary_hash() -> str:
    """Returns the SHA-256 of concepts.tsv, which is part of every report."""
    return sha256_of(_table())
