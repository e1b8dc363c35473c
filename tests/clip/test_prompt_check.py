from __future__ import annotations

import pytest
import tiny
import torch.nn.functional as F

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.prompt_check import COLOURS, PhraseCheck, PromptChecker, split_phrases
from clipgen.clip.score import Scorer, read_captions


class TestSplitPhrases:
    @pytest.mark.parametrize(
        "text, phrases",
        [
            ("a fox in snow", ["a fox", "snow"]),
            ("two red foxes next to an owl, watercolour", ["two red foxes", "an owl", "watercolour"]),
            ("a cat in front of a house on the beach", ["a cat", "a house", "the beach"]),
            ("snow and snow", ["snow"]),
            ("an android", ["an android"]),
            ("...", []),
        ],
    )
    def test_a_prompt_is_split_at_separators(self, text, phrases):
        assert split_phrases(text) == phrases


@pytest.fixture(scope="module")
def prompt_checker():
    words = tiny.tokenizer(32)
    return PromptChecker(Scorer(ClipEncoder("tiny", tiny.clip(words), words, {}), read_captions()))


def features_of(prompt_checker, *texts):
    """Returns image features that equal the mean of the texts' features."""
    return F.normalize(prompt_checker.scorer.encoder.text_features(texts).sum(dim=0), dim=0)


def test_a_matching_image_passes_and_the_opposite_vector_fails(prompt_checker):
    fox = features_of(prompt_checker, "a fox")
    [present] = prompt_checker.check(fox, ["a fox"])
    [absent] = prompt_checker.check(-fox, ["a fox"])
    assert (present.kind, present.subject, present.holds, absent.holds) == ("thing", "fox", True, False)
    assert 0 <= absent.probability < present.probability <= 1


def test_colours_and_counts_are_compared_with_their_alternatives(prompt_checker):
    phrase = "two red foxes"
    checks = prompt_checker.check(features_of(prompt_checker, phrase), [phrase])
    assert [(check.kind, check.subject) for check in checks] == [
        ("thing", phrase),
        ("colour", "red"),
        ("count", "two"),
    ]
    encoder, image = prompt_checker.scorer.encoder, features_of(prompt_checker, phrase)
    texts = [phrase, *(f"two {colour} foxes" for colour in COLOURS if colour != "red")]
    chances = encoder.logits(image[None], encoder.text_features(texts)).softmax(dim=1).detach()
    assert checks[1].probability == pytest.approx(float(chances[0, 0]), abs=1e-6)


def test_a_phrase_with_two_colours_has_no_colour_check(prompt_checker):
    checks = prompt_checker.check(features_of(prompt_checker, "x"), ["a red and blue fox"])
    assert [check.kind for check in checks] == ["thing"]


def test_without_reference_phrases_the_probability_is_one_half(prompt_checker):
    alone = PromptChecker(Scorer(prompt_checker.scorer.encoder, ["a fox in snow"]))
    assert alone.check(features_of(prompt_checker, "x"), ["a fox"]) == (PhraseCheck("a fox", "thing", 0.5),)
