"""Captions -> what they say: the way back from the words of the grammar to things, place, style and relation."""

from __future__ import annotations

import re
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

Meaning = tuple[str, str]  # what a phrase is (thing, things, colour ...) and the name it stands for
FILLERS = (
    "a", "an", "the", "and", "of", "with", "there is", "there are", "picture", "image", "illustration", "drawing",
    "scene",
)  # fmt: skip
JOINT = re.compile(r"[^\w'-]+")


@dataclass(frozen=True)
class ParsedThing:
    """One thing that a caption names, how many of it, and the colour and size it gives it; empty if unsaid."""

    concept: str
    count: int = 1
    colour: str = ""
    size: str = ""


@dataclass(frozen=True)
class ParsedCaption:
    """What a caption says; `relation` is (a, relation, b) by names of concepts, `unknown` words are not the grammar's.

    Empty where something is unsaid.
    """

    things: tuple[ParsedThing, ...]
    place: str = ""
    time: str = ""
    style: str = ""
    relation: tuple[str, str, str] | tuple[()] = ()
    unknown: tuple[str, ...] = ()


@cache
def phrases() -> dict[str, tuple[Meaning, ...]]:
    """Returns every phrase of the grammar in lower case with its meanings; a phrase may have two (orange)."""
    found: dict[str, list[Meaning]] = {}
    pairs: list[tuple[str, Meaning]] = []
    for concept in concepts().values():
        pairs += [(concept.plural, ("things", concept.name))] if concept.plural != concept.name else []
        pairs += [(name, ("thing", concept.name)) for name in (concept.name, *concept.synonyms)]
    pairs += [(colour, ("colour", colour)) for colour in COLOURS]
    pairs += [(f"on {indefinite(colour)} background", ("place", colour)) for colour in COLOURS]
    pairs += [(f"{colour} background", ("place", colour)) for colour in COLOURS]
    pairs += [(size, ("size", size)) for size in SIZES]
    pairs += [(word, ("count", str(number))) for number, words in NUMBERS.items() for word in words]
    pairs += [(phrase, ("place", place)) for place, phrases in PLACE_PHRASES.items() for phrase in phrases]
    pairs += [(tag, ("tag", place)) for place, tag in TAGS.items()]
    pairs += [(phrase, ("time", time)) for time, phrases in TIME_PHRASES.items() for phrase in phrases if phrase]
    pairs += [(phrase, ("style", style)) for style, phrases in STYLE_PHRASES.items() for phrase in phrases]
    pairs += [(phrase, ("relation", name)) for name, phrases in RELATION_PHRASES.items() for phrase in phrases]
    pairs += [(word, ("filler", "")) for word in FILLERS]
    for phrase, meaning in pairs:
        found.setdefault(phrase, [])
        found[phrase] += [meaning] if meaning not in found[phrase] else []
    return {phrase: tuple(meanings) for phrase, meanings in found.items()}


@cache
def _longest() -> int:
    """Returns how many words the longest phrase has."""
    return max(len(phrase.split()) for phrase in phrases())


def parse(text: str) -> ParsedCaption:
    """Returns what a caption says; longer phrases are read first, so that `under the sea` is a place."""
    return _Reading(text).said()


class _Reading:
    """The state of reading one caption from left to right."""

    def __init__(self, text: str) -> None:
        self.words = [word for word in JOINT.split(text.lower()) if word]
        self.things: list[ParsedThing] = []
        self.place = self.time = self.style = ""
        self.relation: tuple[str, str, str] | tuple[()] = ()
        self.unknown: list[str] = []
        self.pending: dict[str, str] = {}  # colour, size and count of the thing to come
        self.joint = ""  # the relation whose second thing is to come

    def said(self) -> ParsedCaption:
        """Reads all words."""
        at = 0
        while at < len(self.words):
            length, meanings = self._phrase(at)
            self._take(meanings, self.words[at], at + length)
            at += length
        things = tuple(self.things)
        return ParsedCaption(things, self.place, self.time, self.style, self.relation, tuple(self.unknown))

    def _phrase(self, at: int) -> tuple[int, tuple[Meaning, ...]]:
        """Returns how many words the longest phrase at a word has, and its meanings; one and none if it is unknown."""
        for length in range(min(_longest(), len(self.words) - at), 0, -1):
            if meanings := phrases().get(" ".join(self.words[at : at + length])):
                return length, meanings
        return 1, ()

    def _take(self, meanings: tuple[Meaning, ...], word: str, after: int) -> None:
        """Takes one phrase in; of two meanings the one that fits what comes next and what was said."""
        kinds = dict(reversed(meanings))
        if not kinds:
            self.unknown.append(word)
        elif "colour" in kinds and ("thing" not in kinds or self._thing_follows(after)):
            self.pending["colour"] = kinds["colour"]
        elif "place" in kinds and ("time" not in kinds or not self.place):
            self.place = self.place or kinds["place"]
        elif "time" in kinds:
            self.time = kinds["time"]
        elif "tag" in kinds and (not kinds.keys() & {"thing", "things"} or self.things):
            self.place = self.place or kinds["tag"]
        elif "style" in kinds:
            self.style = kinds["style"]
        elif "relation" in kinds:
            self.joint = kinds["relation"]
        elif kinds.keys() & {"size", "count"}:
            self.pending |= kinds
        elif kinds.keys() & {"thing", "things"}:
            self._name(kinds.get("thing") or kinds["things"])

    def _thing_follows(self, at: int) -> bool:
        """Tells whether the next phrase can name a thing: `orange` before it is a colour, else the fruit."""
        return at < len(self.words) and any(kind in ("thing", "things") for kind, _ in self._phrase(at)[1])

    def _name(self, concept: str) -> None:
        count = int(self.pending.get("count", "1"))
        self.things.append(ParsedThing(concept, count, self.pending.get("colour", ""), self.pending.get("size", "")))
        if self.joint and len(self.things) > 1:
            self.relation = (self.things[-2].concept, self.joint, concept)
        self.pending, self.joint = {}, ""
