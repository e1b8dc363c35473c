"""Parses captions: finds the things, place, time, style and relation that the words of the grammar name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from clipgen.world.concepts import COLOURS, SIZES, concepts
from clipgen.world.grammar import (
    NUMBERS,
    PLACE_PHRASES,
    RELATION_PHRASES,
    STYLE_PHRASES,
    TAGS,
    TIME_PHRASES,
    indefinite,
)

Meaning = tuple[str, str]  # (kind, value) of a phrase, such as ("colour", "red"); kinds: see _phrase_meanings
FILLERS = (
    "a", "an", "the", "and", "of", "with", "there is", "there are", "picture", "image", "illustration", "drawing",
    "scene",
)  # fmt: skip
WORD_OR_COMMA = re.compile(r"[\w'-]+|,")


@dataclass(frozen=True)
class ParsedThing:
    """One thing of a caption: concept, count, colour and size. `colour` and `size` are empty if not named."""

    concept: str
    count: int = 1
    colour: str = ""
    size: str = ""


@dataclass(frozen=True)
class ParsedCaption:
    """The content of a caption. Strings and tuples are empty if the caption does not name the detail.

    Attributes:
        things: The things in the order of the caption.
        place: One of PLACES or a colour (plain background).
        time: "night", "sunset" or empty; "day" has no words.
        style: One of STYLES.
        relation: (a, relation, b) by the names of the concepts.
        unknown: Words that are not in the grammar.
    """

    things: tuple[ParsedThing, ...]
    place: str = ""
    time: str = ""
    style: str = ""
    relation: tuple[str, str, str] | tuple[()] = ()
    unknown: tuple[str, ...] = ()


def parse(text: str) -> ParsedCaption:
    """Parses a caption. The longest phrase wins, so `under the sea` is a place and no relation."""
    return _Parser(text).parse()


@cache
def phrases() -> dict[str, tuple[Meaning, ...]]:
    """Returns the meanings of every phrase of the grammar in lower case; "orange" is a thing and a colour."""
    meanings: dict[str, dict[Meaning, None]] = {}
    for phrase, meaning in _phrase_meanings():
        meanings.setdefault(phrase, {})[meaning] = None
    return {phrase: tuple(of_phrase) for phrase, of_phrase in meanings.items()}


def _phrase_meanings() -> Iterator[tuple[str, Meaning]]:
    """Yields every phrase of the grammar with one meaning."""
    for concept in concepts().values():
        if concept.plural != concept.name:
            yield concept.plural, ("things", concept.name)
        yield from ((name, ("thing", concept.name)) for name in (concept.name, *concept.synonyms))
    for colour in COLOURS:
        yield colour, ("colour", colour)
        yield f"on {indefinite(colour)} background", ("place", colour)
        yield f"{colour} background", ("place", colour)
    yield from ((size, ("size", size)) for size in SIZES)
    yield from ((tag, ("tag", place)) for place, tag in TAGS.items())
    yield from ((word, ("count", str(number))) for number, words in NUMBERS.items() for word in words)
    for kind, phrases_by_value in (
        ("place", PLACE_PHRASES), ("time", TIME_PHRASES), ("style", STYLE_PHRASES), ("relation", RELATION_PHRASES),
    ):  # fmt: skip
        yield from ((p, (kind, value)) for value, phrases in phrases_by_value.items() for p in phrases if p)
    yield from ((word, ("filler", "")) for word in FILLERS)


@cache
def _most_words() -> int:
    """Returns the number of words of the longest phrase."""
    return max(len(phrase.split()) for phrase in phrases())


class _Parser:
    """Reads one caption from left to right, phrase by phrase."""

    def __init__(self, text: str) -> None:
        self.words: list[str] = []
        self.after_comma: set[int] = set()  # indices of the words that follow a comma
        for token in WORD_OR_COMMA.findall(text.lower()):
            if token == ",":
                self.after_comma.add(len(self.words))
            else:
                self.words.append(token)
        self.things: list[ParsedThing] = []
        self.place = self.time = self.style = ""
        self.relation: tuple[str, str, str] | tuple[()] = ()
        self.unknown: list[str] = []
        self.attributes: dict[str, str] = {}  # colour, size and count of the next thing
        self.open_relation = ""  # a relation whose second thing comes next

    def parse(self) -> ParsedCaption:
        """Reads all words and returns what they name."""
        index = 0
        while index < len(self.words):
            length, meanings = self._longest_phrase(index)
            self._add(dict(reversed(meanings)), self.words[index], index + length)
            index += length
        things = tuple(self.things)
        return ParsedCaption(things, self.place, self.time, self.style, self.relation, tuple(self.unknown))

    def _longest_phrase(self, index: int) -> tuple[int, tuple[Meaning, ...]]:
        """Returns the number of words and the meanings of the longest phrase at a word; (1, ()) if it is unknown."""
        for length in range(min(_most_words(), len(self.words) - index), 0, -1):
            if meanings := phrases().get(" ".join(self.words[index : index + length])):
                return length, meanings
        return 1, ()

    def _add(self, meanings: dict[str, str], word: str, next_index: int) -> None:
        """Adds one phrase. If it has two meanings, the words around it decide.

        Args:
            meanings: Values by kind of the phrase; empty if the word is unknown.
            word: The first word of the phrase.
            next_index: Index of the word after the phrase.
        """
        is_thing = bool(meanings.keys() & {"thing", "things"})
        if not meanings:
            self.unknown.append(word)
        elif "colour" in meanings and (not is_thing or self._thing_at(next_index)):
            self.attributes["colour"] = meanings["colour"]
        elif "place" in meanings and ("time" not in meanings or not self.place):
            self.place = self.place or meanings["place"]
        elif "time" in meanings:
            self.time = meanings["time"]
        elif "tag" in meanings and (not is_thing or (self.things and not self.attributes)):
            self.place = self.place or meanings["tag"]
        elif "style" in meanings:
            self.style = meanings["style"]
        elif "relation" in meanings:
            self.open_relation = meanings["relation"]
        elif meanings.keys() & {"size", "count"}:
            self.attributes |= meanings
        elif is_thing:
            self._add_thing(meanings.get("thing") or meanings["things"])

    def _thing_at(self, index: int) -> bool:
        """Returns whether a thing starts at a word, with no comma before it: an `orange` before it is then a colour."""
        if index >= len(self.words) or index in self.after_comma:
            return False
        return any(kind in ("thing", "things") for kind, _ in self._longest_phrase(index)[1])

    def _add_thing(self, concept: str) -> None:
        """Adds a thing with the attributes before it, and closes an open relation."""
        count, colour, size = (self.attributes.get(kind, "") for kind in ("count", "colour", "size"))
        self.things.append(ParsedThing(concept, int(count or 1), colour, size))
        if self.open_relation and len(self.things) > 1:
            self.relation = (self.things[-2].concept, self.open_relation, concept)
        self.attributes, self.open_relation = {}, ""
