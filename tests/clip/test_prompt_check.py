from __future__ import annotations

import pytest
import tiny
import torch.nn.functional as F

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.prompt_check import COLOURS, PhraseCheck, PromptChecker, split_phrases
from clipgen.clip.score import Scorer, read_captions


class TestPhrases:
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
    def test_a_prompt_falls_into_its_parts(self, text, phrases):
        assert split_phrases(text) == phrases


@pytest.fixture(scope="module")
def prompt_checker():
    words = tiny.tokenizer(32)
    return PromptChecker(Scorer(ClipEncoder("tiny", tiny.clip(words), words, {}), read_captions()))


def vector_of(prompt_checker, *texts):
    """A picture that is exactly what the texts say."""
    return F.normalize(prompt_checker.scorer.encoder.text_features(texts).sum(dim=0), dim=0)


def test_what_a_picture_is_holds_and_its_opposite_does_not(prompt_checker):
    fox = vector_of(prompt_checker, "a fox")
    [there] = prompt_checker.check(fox, ["a fox"])
    [away] = prompt_checker.check(-fox, ["a fox"])
    assert (there.kind, there.subject, there.holds, away.holds) == ("thing", "fox", True, False)
    assert 0 <= away.probability < there.probability <= 1


def test_a_colour_and_a_number_are_told_from_the_others(prompt_checker):
    phrase = "two red foxes"
    checks = prompt_checker.check(vector_of(prompt_checker, phrase), [phrase])
    assert [(check.kind, check.subject) for check in checks] == [
        ("thing", phrase),
        ("colour", "red"),
        ("count", "two"),
    ]
    encoder, image = prompt_checker.scorer.encoder, vector_of(prompt_checker, phrase)
    texts = [phrase, *(f"two {colour} foxes" for colour in COLOURS if colour != "red")]
    chances = encoder.logits(image[None], encoder.text_features(texts)).softmax(dim=1).detach()
    assert checks[1].probability == pytest.approx(float(chances[0, 0]), abs=1e-6)


def test_two_colours_are_no_question_of_colour(prompt_checker):
    assert [check.kind for check in prompt_checker.check(vector_of(prompt_checker, "x"), ["a red and blue fox"])] == [
        "thing"
    ]


def test_without_others_nothing_is_known(prompt_checker):
    alone = PromptChecker(Scorer(prompt_checker.scorer.encoder, ["a fox in snow"]))
    assert alone.check(vector_of(prompt_checker, "x"), ["a fox"]) == (PhraseCheck("a fox", "thing", 0.5),)
