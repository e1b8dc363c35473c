"""The vocabulary of a model, and the translation of prompts into it."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipgen.settings.settings import Note
from clipgen.world.concepts import concepts
from clipgen.world.grammar import caption, plain_caption
from clipgen.world.scene import Mix, sample_scene
from clipgen.world.vocabulary import STOP_WORDS, VOCABULARIES, Reading, Vocabulary, _is_one_edit, vocabulary_name

SMALL, LARGE = VOCABULARIES["storybook"], VOCABULARIES["storybook-large"]


class FirstChoice(random.Random):
    """A random generator whose `random()` is always 0.5, at which captions contain no synonyms."""

    def random(self) -> float:
        return 0.5


def test_the_vocabulary_is_the_one_that_the_bundled_model_is_trained_on() -> None:
    assert SMALL.names == Mix(tier=2).names
    assert len(LARGE.names) == len(concepts())
    assert vocabulary_name(3) == "storybook-large"


def test_captions_without_synonyms_come_back_unchanged_and_without_notes() -> None:
    for seed in range(150):
        for tier, vocabulary in ((2, SMALL), (3, LARGE)):
            scene = sample_scene(7_000_000 + seed, Mix(tier=tier))
            for text in (caption(scene, FirstChoice(seed)), plain_caption(scene)):
                reading = vocabulary.read(text)
                assert (reading.text, reading.replaced, reading.unknown) == (text, (), ()), text
                assert reading.has_content
                assert vocabulary.notes(text, "storybook") == ()


def test_captions_with_synonyms_have_no_unknown_words_and_translation_is_idempotent() -> None:
    for seed in range(150):
        text = caption(sample_scene(seed, Mix(tier=2)), random.Random(seed))
        reading = SMALL.read(text)
        assert not reading.unknown, text
        assert SMALL.read(reading.text) == Reading(reading.text, has_content=True), text


@pytest.mark.parametrize(
    "prompt, text, replaced",
    [
        ("a lorry in the snow", "a truck in the snow", [("lorry", "truck")]),
        ("An automobile at night", "A car at night", [("automobile", "car")]),
        ("a plane and a burger", "an airplane and a hamburger", [("plane", "airplane"), ("burger", "hamburger")]),
        ("two kittens", "two cats", [("kittens", "cats")]),
        ("Puppies, lorries", "dogs, trucks", [("Puppies", "dogs"), ("lorries", "trucks")]),
        ("a hedgehgo", "a hedgehog", [("hedgehgo", "hedgehog")]),
        ("a foxx", "a fox", [("foxx", "fox")]),
        ("an owl at ngiht", "an owl at night", [("ngiht", "night")]),
        ("a grey wolf", "a wolf", [("grey wolf", "wolf")]),
        ("fishes and cactuses", "fish and cacti", [("fishes", "fish"), ("cactuses", "cacti")]),
        ("a kitten's hat", "a cat's hat", [("kitten", "cat")]),
        ("🦊in snow, 🧑🏽‍🚀", "fox in snow, astronaut", [("🦊", "fox"), ("🧑🏽‍🚀", "astronaut")]),
        ("a fox, pixel-art", "a fox, pixel art", []),
        ("a hot  dog", "a hot dog", []),
    ],
)
def test_words_are_replaced(prompt: str, text: str, replaced: list[tuple[str, str]]) -> None:
    assert SMALL.read(prompt).text == text
    assert list(SMALL.read(prompt).replaced) == replaced
    assert not SMALL.read(prompt).unknown


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        " ",
        "...!?",
        "12 345",
        "A RED FOX IN SNOW!!!",
        "a watercolor of the Foxes; it's at night, (with 3 owls)",
        "a green apple, a red fox and a white bird",
        "the fox's",
        "a T-Rex on the moon",
        "fox_and_owl",
        "one single star over me",
    ],
)
def test_known_words_are_unchanged(prompt: str) -> None:
    assert SMALL.read(prompt).text == prompt
    assert SMALL.notes(prompt, "storybook") == ()


@pytest.mark.parametrize(
    "prompt, unknown",
    [
        ("a dachshund on a skateboard", ["dachshund"]),
        ("Angela and a fox", ["Angela"]),
        ("a fox in snow, man", ["man"]),
        ("a gray cat", ["gray"]),
        ("a fox with a 🐕‍🦺", ["🐕‍🦺"]),
        ("a cat, a sharp towel and Brian", ["sharp", "towel", "Brian"]),
        ("ein Hund in der Nacht", ["ein", "Hund", "der", "Nacht"]),
        ("ein Fuchs im Schnee", ["ein", "Fuchs", "im", "Schnee"]),
        ("雪の中の狐", ["雪の中の狐"]),
    ],
)
def test_unknown_words_are_unchanged_and_noted(prompt: str, unknown: list[str]) -> None:
    assert SMALL.read(prompt).text == prompt
    assert list(SMALL.read(prompt).unknown) == unknown


def test_a_word_of_the_large_vocabulary_is_unknown_to_the_small_one() -> None:
    assert SMALL.read("an angel").unknown == ("angel",)
    assert LARGE.read("an angel") == Reading("an angel", has_content=True)
    assert LARGE.read("a cherub").text == "an angel"


def test_notes() -> None:
    hint = "It knows 260 things: clipgen models show storybook --words"
    assert SMALL.notes("a kitten and a lorry", "storybook") == (
        Note("word-replaced", "prompt", "'kitten' is drawn as 'cat', 'lorry' as 'truck'"),
    )
    assert SMALL.notes("a dachshund, Angela, a dachshund, a fox", "storybook") == (
        Note("word-unknown", "prompt", f"storybook does not know 'dachshund', 'Angela'. {hint}"),
    )
    [note] = SMALL.notes("ein Fuchs im Schnee", "storybook")
    assert note.message == (
        "storybook knows no word of this prompt ('ein', 'Fuchs', 'im', 'Schnee'), so the picture will not show it. "
        + hint
    )
    [note] = SMALL.notes("blurry, ugly", "./my-model", "negative_prompt")
    assert note.field == "negative_prompt"
    assert note.message.startswith("./my-model does not know 'blurry', 'ugly'. It knows")
    [note] = SMALL.notes("a fox, " + ", ".join(f"xq{letter}z" for letter in "abcdefgh"), "storybook")
    assert "'xqfz' and 2 more." in note.message


def test_edits_lead_from_the_prompt_to_the_text() -> None:
    reading = SMALL.read("An automobile, a lorry")
    assert [("An automobile, a lorry"[edit.start : edit.end], edit.text) for edit in reading.edits] == [
        ("An", "A"),
        ("automobile", "car"),
        ("lorry", "truck"),
    ]


@given(st.text(max_size=60), st.sampled_from([SMALL, LARGE]))
def test_any_text_can_be_read(text: str, vocabulary: Vocabulary) -> None:
    reading = vocabulary.read(text)
    assert all(word in text for word in reading.unknown)
    assert reading.text == text or reading.edits


@given(st.lists(st.sampled_from(["kitten", "a", "fox", "🦊", "lorry", "snow", "man", ",", "-", "hot", "dog", "ngiht"])))
def test_a_text_in_known_words_is_not_changed_again(words: list[str]) -> None:
    text = SMALL.read(" ".join(words)).text
    assert SMALL.read(text).replaced == ()


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_one_edit_is_damerau_levenshtein_distance_1(a: str, b: str) -> None:
    places = range(len(a) + 1)
    deletions = {a[:k] + a[k + 1 :] for k in range(len(a))}
    insertions = {a[:k] + letter + a[k:] for k, letter in product(places, "abc")}
    substitutions = {a[:k] + letter + a[k + 1 :] for k, letter in product(range(len(a)), "abc")}
    swaps = {a[:k] + a[k + 1] + a[k] + a[k + 2 :] for k in range(len(a) - 1)}
    if a != b:
        assert _is_one_edit(a, b) == (b in deletions | insertions | substitutions | swaps)


def test_the_listing_holds_names_and_other_words() -> None:
    words = SMALL.to_dict()
    assert list(words) == ["things", "places", "times", "styles", "colours", "counts", "sizes", "relations"]
    assert list(words["things"]) == sorted(SMALL.names)
    assert "lorry" in words["things"]["truck"]
    assert words["styles"]["watercolour"] == ["watercolor"]
    assert words["counts"] == {"two": ["2"], "three": ["3"], "four": ["4"]}
    assert words["places"]["under the sea"] == ["underwater", "in the ocean"]
    assert words["colours"]["red"] == []


def test_every_listed_word_is_known() -> None:
    for names in SMALL.to_dict().values():
        for name, others in names.items():
            for word in (name, *others):
                assert not SMALL.read(word).unknown, word


def test_stop_words_are_no_things() -> None:
    assert not STOP_WORDS & {*LARGE.names}
