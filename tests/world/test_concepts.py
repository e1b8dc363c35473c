"""Holds the table of concepts: unique names, right plurals, drawings that exist, hues that are true."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from clipgen.errors import ClipgenError
from clipgen.world.art import find_package
from clipgen.world.concepts import COLOURS, PLACES, SIZES, STYLES, Concept, concepts
from clipgen.world.drawings import HUES, dominant_hue, drawing_image

ALL = list(concepts().values())
LARGE = [concept for concept in ALL if concept.tier == 3]
STANCES = {"ground", "sky", "water", "table", "any"}
IRREGULAR = {
    "man": "men", "woman": "women", "person": "people", "snowman": "snowmen", "merman": "mermen", "mouse": "mice",
    "foot": "feet", "tooth": "teeth", "goose": "geese", "ox": "oxen", "wolf": "wolves", "leaf": "leaves",
    "elf": "elves", "knife": "knives", "scarf": "scarves", "cactus": "cacti", "chili": "chilies",
}  # fmt: skip
IN_OES = {"buffalo", "mango", "mosquito", "potato", "superhero", "tomato", "tornado", "volcano"}
UNCHANGED = {
    "bison", "broccoli", "cherries", "deer", "dice", "fish", "fries", "glasses", "grapes", "jellyfish", "moose",
    "pancakes", "pufferfish", "scissors", "sheep", "sushi", "thumbs down", "thumbs up", "tropical fish",
}  # fmt: skip
COUNTED_OTHERWISE = {"chocolate": "chocolate bars", "lightning": "lightning bolts"}
TAIL = re.compile(r" (?=(?:of|in|with|and|getting|raising) )")


def has_drawings() -> bool:
    try:
        find_package("flat"), find_package("noto")
    except ClipgenError:
        return False
    return True


needs_drawings = pytest.mark.skipif(not has_drawings(), reason="The drawings are not installed")


def plural_of(noun: str) -> str:
    """Forms the plural of a noun without a tail, by the rules of English and the exceptions above."""
    *before, last = noun.split(" ")
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")) or last in IN_OES:
        last += "es"
    elif re.search("[^aeiou]y$", last):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join([*before, last])


def has_right_plural(concept: Concept) -> bool:
    name, plural = concept.name, concept.plural
    if name in UNCHANGED or name in COUNTED_OTHERWISE:
        return plural == COUNTED_OTHERWISE.get(name, name)
    if plural.endswith(f" of {name}"):  # bread, jeans: counted by loaves and pairs
        return plural.split(" ")[0].endswith("s")
    head, *tail = TAIL.split(name)
    return plural == plural_of(name) or (bool(tail) and TAIL.split(plural)[0] == plural_of(head))


def test_the_vocabulary_is_large() -> None:
    tiers = Counter(concept.tier for concept in ALL)
    assert set(tiers) == {1, 2, 3}
    assert len(ALL) >= 880


def test_names_and_synonyms_are_unique() -> None:
    words = Counter(word for concept in ALL for word in (concept.name, *concept.synonyms))
    assert not [word for word, times in words.items() if times > 1]


def test_a_plural_names_no_other_concept() -> None:
    owners = {word: concept.name for concept in ALL for word in (concept.name, *concept.synonyms)}
    plurals = Counter(concept.plural for concept in ALL)
    assert max(plurals.values()) == 1
    assert not [c.plural for c in ALL if owners.get(c.plural, c.name) != c.name]


def test_words_are_plain() -> None:
    words = [word for concept in ALL for word in (concept.name, concept.plural, *concept.synonyms)]
    assert not [word for word in words if not re.fullmatch("[a-z]+([ -][a-z]+)*", word)]


def test_plurals_are_english() -> None:
    assert not {concept.name: concept.plural for concept in ALL if not has_right_plural(concept)}


def test_other_columns_hold_what_is_allowed() -> None:
    assert {concept.stance for concept in ALL} <= STANCES
    assert {hue for concept in ALL for hue in concept.hues} <= {"", *HUES}
    assert all(concept.drawings for concept in ALL)


def test_names_say_no_colour_size_place_or_style() -> None:
    """A dyed or placed concept would otherwise be called a "blue red apple" or be a picture of a held-out cell."""
    said = {*COLOURS, *SIZES}
    names = [word for concept in LARGE for word in (concept.name, *concept.synonyms)]
    assert not [name for name in names if said & set(name.split(" "))]
    assert not {*PLACES, *STYLES} & {*names, *(concept.name for concept in ALL)}


def test_synonyms_take_an_article() -> None:
    """A synonym is said as "a ...": of the large vocabulary none is a bare plural or a mass."""
    units = {concept.plural: concept.name for concept in LARGE if concept.plural.endswith(f" of {concept.name}")}
    synonyms = {word for concept in LARGE for word in concept.synonyms}
    assert not synonyms & {*units, *units.values()}


def test_every_drawing_appears_once() -> None:
    drawings = Counter(drawing.replace("\ufe0f", "") for concept in ALL for drawing in concept.drawings)
    assert not [drawing for drawing, times in drawings.items() if times > 1]


@needs_drawings
@pytest.mark.parametrize("art", ["flat", "noto"])
def test_every_concept_of_the_model_has_its_drawings(art: str) -> None:
    images = {d: drawing_image(d, art) for concept in ALL if concept.tier <= 2 for d in concept.drawings}
    assert not {d: image.size for d, image in images.items() if not (150 <= max(image.size) <= 340)}
    assert not [d for d, image in images.items() if np.asarray(image)[..., 3].max() < 255]


@needs_drawings
@pytest.mark.parametrize("art", ["flat", "noto"])
def test_hues_are_those_of_the_drawings(art: str) -> None:
    dyeable = [c for c in ALL if c.hue(art)]
    assert not {c.name: c.hue(art) for c in dyeable if {dominant_hue(d, art) for d in c.drawings} != {c.hue(art)}}
