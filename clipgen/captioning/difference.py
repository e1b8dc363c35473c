"""A caption of a picture against its prompt, both read by the grammar: synonyms, numbers and places are understood."""

from __future__ import annotations

from collections.abc import Iterator

from clipgen.captioning.word_difference import Difference, by_words
from clipgen.world.concepts import COLOURS, concepts
from clipgen.world.grammar import NUMBERS, PLACE_PHRASES, TIME_PHRASES, indefinite
from clipgen.world.parse import ParsedCaption, ParsedThing, parse


def difference(prompt: str, caption: str) -> Difference:
    """Returns what a caption lacks of a prompt and what it adds: by the grammar where it reads both, else by words.

    A detail that one of the two leaves open contradicts nothing: a caption may name a colour, a place, a style unasked.
    What it names otherwise than asked is both missing and hallucinated. Words of the prompt that the grammar does not
    know are missing if the caption does not say them either.
    """
    asked, said = parse(prompt), parse(caption)
    if said.unknown or not asked.things or not said.things:
        return by_words(prompt, caption)
    strange = by_words(" ".join(asked.unknown), caption).missing
    return Difference((*_lacking(asked, said), *strange), tuple(_lacking(said, asked, unasked=False)))


def _lacking(one: ParsedCaption, other: ParsedCaption, *, unasked: bool = True) -> Iterator[str]:
    """Yields what the first says and the second does not; without `unasked` only where the second says otherwise."""
    there = {thing.concept: thing for thing in other.things}
    for thing in one.things:
        if thing.concept not in there:
            yield _phrase(thing)
        else:
            yield from _details(thing, there[thing.concept], unasked)
    for kind, phrase in (("place", _place), ("time", _time), ("style", str)):
        mine, theirs = getattr(one, kind), getattr(other, kind)
        if mine and mine != theirs and (theirs or unasked):
            yield phrase(mine)
    if one.relation and one.relation != other.relation and (other.relation or unasked):
        a, relation, b = one.relation
        if {a, b} <= there.keys():
            yield f"{a} {relation} {b}"


def _details(thing: ParsedThing, other: ParsedThing, unasked: bool) -> Iterator[str]:
    """Yields what is told of one thing and not of the other of that name."""
    if thing.count != other.count:
        yield _phrase(ParsedThing(thing.concept, thing.count))
    for mine, theirs in ((thing.colour, other.colour), (thing.size, other.size)):
        if mine and mine != theirs and (theirs or unasked):
            yield f"{mine} {thing.concept}"


def _phrase(thing: ParsedThing) -> str:
    """Returns a thing in words: `two small red foxes`."""
    concept = concepts()[thing.concept]
    name = concept.name if thing.count == 1 else concept.plural
    return " ".join(filter(None, (NUMBERS[thing.count][0] if thing.count > 1 else "", thing.size, thing.colour, name)))


def _place(place: str) -> str:
    return f"on {indefinite(place)} background" if place in COLOURS else PLACE_PHRASES[place][0]


def _time(time: str) -> str:
    return TIME_PHRASES[time][0]
