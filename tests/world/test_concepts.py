"""Tests of the table of concepts: unique names, correct plurals, existing drawings, correct hues."""

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
OTHER_PLURALS = {"chocolate": "chocolate bars", "lightning": "lightning bolts"}
TAIL = re.compile(r" (?=(?:of|in|with|and|getting|raising) )")


def has_drawings() -> bool:
    try:
        find_package("flat"), find_package("noto")
    except ClipgenError:
        return False
    return True


needs_drawings = pytest.mark.skipif(not has_drawings(), reason="The drawings are not installed")


def plural_of(noun: str) -> str:
    """Returns the plural of a noun by the rules of English and the exceptions above; the last word is inflected."""
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


def has_correct_plural(concept: Concept) -> bool:
    name, plural = concept.name, concept.plural
    if name in UNCHANGED or name in OTHER_PLURALS:
        return plural == OTHER_PLURALS.get(name, name)
    if plural.endswith(f" of {name}"):  # loaves of bread, pairs of jeans
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


def test_no_plural_is_the_name_of_another_concept() -> None:
    owners = {word: concept.name for concept in ALL for word in (concept.name, *concept.synonyms)}
    plurals = Counter(concept.plural for concept in ALL)
    assert max(plurals.values()) == 1
    assert not [c.plural for c in ALL if owners.get(c.plural, c.name) != c.name]


def test_words_are_lower_case_letters() -> None:
    words = [word for concept in ALL for word in (concept.name, concept.plural, *concept.synonyms)]
    assert not [word for word in words if not re.fullmatch("[a-z]+([ -][a-z]+)*", word)]


def test_plurals_are_english() -> None:
    assert not {concept.name: concept.plural for concept in ALL if not has_correct_plural(concept)}


def test_stances_and_hues_are_known_and_every_concept_has_a_drawing() -> None:
    assert {concept.stance for concept in ALL} <= STANCES
    assert {hue for concept in ALL for hue in concept.hues} <= {"", *HUES}
    assert all(concept.drawings for concept in ALL)


def test_names_contain_no_colour_or_size() -> None:
    """A recoloured concept would otherwise be called a "blue red apple", and "a red apple" would have two meanings."""
    names = [name for concept in ALL if any(concept.hues) for name in (concept.name, *concept.synonyms)]
    names += [name for concept in LARGE for name in (concept.name, *concept.synonyms)]
    assert [name for name in names if {*COLOURS, *SIZES} & set(name.split(" "))] == ["orange"]  # the fruit


def test_no_name_is_a_place_or_style() -> None:
    """Such a name would describe a held-out cell that the scene does not contain."""
    assert not {*PLACES, *STYLES} & {name for concept in ALL for name in (concept.name, *concept.synonyms)}


def test_synonyms_take_an_article() -> None:
    """A caption says "a" before a synonym, so no synonym of the large vocabulary is a plural or a mass noun."""
    units = {concept.plural: concept.name for concept in LARGE if concept.plural.endswith(f" of {concept.name}")}
    synonyms = {word for concept in LARGE for word in concept.synonyms}
    assert not synonyms & {*units, *units.values()}


def test_every_drawing_appears_once() -> None:
    drawings = Counter(drawing.replace("\ufe0f", "") for concept in ALL for drawing in concept.drawings)
    assert not [drawing for drawing, times in drawings.items() if times > 1]


@needs_drawings
@pytest.mark.parametrize("art", ["flat", "noto"])
def test_every_concept_of_the_small_vocabulary_has_its_drawings(art: str) -> None:
    images = {d: drawing_image(d, art) for concept in ALL if concept.tier <= 2 for d in concept.drawings}
    assert not {d: image.size for d, image in images.items() if not (150 <= max(image.size) <= 340)}
    assert not [d for d, image in images.items() if np.asarray(image)[..., 3].max() < 255]


@needs_drawings
@pytest.mark.parametrize("art", ["flat", "noto"])
def test_hues_match_the_drawings(art: str) -> None:
    recolourable = [c for c in ALL if c.hue(art)]
    assert not {c.name: c.hue(art) for c in recolourable if {dominant_hue(d, art) for d in c.drawings} != {c.hue(art)}}
