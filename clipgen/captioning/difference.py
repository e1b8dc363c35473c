"""What a caption of an image lacks of the prompt, and what it adds.

Both texts are parsed with the grammar of `clipgen.world`, so that synonyms, counts and places are compared by meaning.
Texts that the grammar cannot read are compared word by word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from clipgen.clip.prompt_check import NUMBERS as NUMBER_WORDS
from clipgen.clip.prompt_check import SEPARATORS
from clipgen.world.concepts import COLOURS, concepts
from clipgen.world.grammar import NUMBERS, PLACE_PHRASES, TIME_PHRASES, indefinite
from clipgen.world.parse import ParsedCaption, ParsedThing, parse

# Words that name nothing in an image.
STOP_WORDS = frozenset(word for separator in SEPARATORS for word in separator.split()) | {
    "a", "an", "the", "of", "is", "are", "there", "it", "its", "this", "that", "these", "those", "some", "very", "one",
    "picture", "image", "photo", "photograph", "illustration", "drawing", "painting", "scene", "close", "up", "view",
    "show", "shows", "showing", "standing", "sitting",
}  # fmt: skip
WORD = re.compile(r"[^\W_][\w'-]*")
DIGITS = {str(number): word for number, word in enumerate(NUMBER_WORDS, start=1)}


@dataclass(frozen=True)
class Difference:
    """The parts of a prompt that are `missing` from a caption, and the parts of the caption that contradict it."""

    missing: tuple[str, ...]
    hallucinated: tuple[str, ...]


def difference(prompt: str, caption: str) -> Difference:
    """Returns the difference of a prompt and a caption: by the grammar if it reads both, else by words.

    A detail that only the caption names (colour, place, style) contradicts nothing. A detail that the two name
    differently is both missing and hallucinated. Words of the prompt that the grammar does not know are compared as
    words.
    """
    asked, described = parse(prompt), parse(caption)
    if described.unknown or not asked.things or not described.things:
        return by_words(prompt, caption)
    unknown = by_words(" ".join(asked.unknown), caption).missing
    missing = (*_missing(asked, described), *unknown)
    return Difference(missing, tuple(_missing(described, asked, only_contradictions=True)))


def _missing(text: ParsedCaption, other: ParsedCaption, *, only_contradictions: bool = False) -> Iterator[str]:
    """Yields the parts of `text` that `other` lacks; optionally only details that `other` states differently.

    A thing that `other` does not name at all is always yielded.
    """
    others = {thing.concept: thing for thing in other.things}
    for thing in text.things:
        if thing.concept not in others:
            yield _phrase(thing)
        else:
            yield from _missing_details(thing, others[thing.concept], only_contradictions)
    for kind, phrase in (("place", _place), ("time", _time), ("style", str)):
        mine, theirs = getattr(text, kind), getattr(other, kind)
        if mine and mine != theirs and (theirs or not only_contradictions):
            yield phrase(mine)
    if text.relation and text.relation != other.relation and (other.relation or not only_contradictions):
        a, relation, b = text.relation
        if {a, b} <= others.keys():
            yield f"{a} {relation} {b}"


def _missing_details(thing: ParsedThing, other: ParsedThing, only_contradictions: bool) -> Iterator[str]:
    """Yields the count, colour and size of one thing that the same thing in the other text lacks."""
    if thing.count != other.count:
        yield _phrase(ParsedThing(thing.concept, thing.count))
    for mine, theirs in ((thing.colour, other.colour), (thing.size, other.size)):
        if mine and mine != theirs and (theirs or not only_contradictions):
            yield f"{mine} {thing.concept}"


def _phrase(thing: ParsedThing) -> str:
    """Returns a thing as words: `two small red foxes`."""
    concept = concepts()[thing.concept]
    name = concept.name if thing.count == 1 else concept.plural
    return " ".join(filter(None, (NUMBERS[thing.count][0] if thing.count > 1 else "", thing.size, thing.colour, name)))


def _place(place: str) -> str:
    return f"on {indefinite(place)} background" if place in COLOURS else PLACE_PHRASES[place][0]


def _time(time: str) -> str:
    return TIME_PHRASES[time][0]


def by_words(prompt: str, caption: str) -> Difference:
    """Returns the content words that only one of two texts has; singular and plural count as the same word."""
    asked, described = _words(prompt), _words(caption)
    return Difference(
        tuple(word for stem, word in asked.items() if stem not in described),
        tuple(word for stem, word in described.items() if stem not in asked),
    )


def _words(text: str) -> dict[str, str]:
    """Returns the content words of a text by their stems."""
    words = [DIGITS.get(word, word) for word in WORD.findall(text.lower())]
    return {_stem(word): word for word in words if word not in STOP_WORDS}


def _stem(word: str) -> str:
    for ending, singular in (("ies", "y"), ("ves", "f"), ("ses", "s"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if word.endswith(ending):
            return word.removesuffix(ending) + singular
    return word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word
