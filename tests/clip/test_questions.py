from __future__ import annotations

import pytest
import tiny
import torch.nn.functional as F

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.questions import COLOURS, Check, Examiner, phrases_of
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
        assert phrases_of(text) == phrases


@pytest.fixture(scope="module")
def examiner():
    words = tiny.tokenizer(32)
    return Examiner(Scorer(ClipEncoder("tiny", tiny.clip(words), words, {}), read_captions()))


def vector_of(examiner, *texts):
    """A picture that is exactly what the texts say."""
    return F.normalize(examiner.scorer.encoder.text_features(texts).sum(dim=0), dim=0)


def test_what_a_picture_is_holds_and_its_opposite_does_not(examiner):
    fox = vector_of(examiner, "a fox")
    [there] = examiner.ask(fox, ["a fox"])
    [away] = examiner.ask(-fox, ["a fox"])
    assert (there.kind, there.subject, there.holds, away.holds) == ("thing", "fox", True, False)
    assert 0 <= away.probability < there.probability <= 1


def test_a_colour_and_a_number_are_told_from_the_others(examiner):
    phrase = "two red foxes"
    checks = examiner.ask(vector_of(examiner, phrase), [phrase])
    assert [(check.kind, check.subject) for check in checks] == [
        ("thing", phrase),
        ("colour", "red"),
        ("count", "two"),
    ]
    encoder, image = examiner.scorer.encoder, vector_of(examiner, phrase)
    texts = [phrase, *(f"two {colour} foxes" for colour in COLOURS if colour != "red")]
    chances = encoder.logits(image[None], encoder.text_features(texts)).softmax(dim=1).detach()
    assert checks[1].probability == pytest.approx(float(chances[0, 0]), abs=1e-6)


def test_two_colours_are_no_question_of_colour(examiner):
    assert [check.kind for check in examiner.ask(vector_of(examiner, "x"), ["a red and blue fox"])] == ["thing"]


def test_without_others_nothing_is_known(examiner):
    alone = Examiner(Scorer(examiner.scorer.encoder, ["a fox in snow"]))
    assert alone.ask(vector_of(examiner, "x"), ["a fox"]) == (Check("a fox", "thing", 0.5),)
