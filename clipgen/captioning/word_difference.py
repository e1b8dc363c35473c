"""A caption of a picture against its prompt, word by word: what is missing, what nobody asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clipgen.clip.prompt_check import JOINTS, NUMBERS

# What a prompt or a caption says without naming anything in the picture.
EMPTY = frozenset(word for joint in JOINTS for word in joint.split()) | {
    "a", "an", "the", "of", "is", "are", "there", "it", "its", "this", "that", "these", "those", "some", "very", "one",
    "picture", "image", "photo", "photograph", "illustration", "drawing", "painting", "scene", "close", "up", "view",
    "show", "shows", "showing", "standing", "sitting",
}  # fmt: skip
WORD = re.compile(r"[^\W_][\w'-]*")
DIGITS = {str(number): word for number, word in enumerate(NUMBERS, start=1)}


@dataclass(frozen=True)
class Difference:
    """What a prompt asks for and a caption does not say, and what the caption says unasked."""

    missing: tuple[str, ...]
    hallucinated: tuple[str, ...]


def by_words(prompt: str, caption: str) -> Difference:
    """Returns the words with a meaning that only one of two texts has; singular and plural are one word."""
    asked, said = _words(prompt), _words(caption)
    return Difference(
        tuple(word for stem, word in asked.items() if stem not in said),
        tuple(word for stem, word in said.items() if stem not in asked),
    )


def _words(text: str) -> dict[str, str]:
    """Returns the words of a text that mean something, by what singular and plural have in common."""
    words = [DIGITS.get(word, word) for word in WORD.findall(text.lower())]
    return {_stem(word): word for word in words if word not in EMPTY}


def _stem(word: str) -> str:
    for ending, put in (("ies", "y"), ("ves", "f"), ("ses", "s"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if word.endswith(ending):
            return word.removesuffix(ending) + put
    return word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word
