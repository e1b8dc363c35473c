from __future__ import annotations

import pytest
import tiny
import torch
import torch.nn.functional as F

from clipgen.clip.classify import check_labels, classify_features, label_features, probabilities
from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import SettingsError

LABELS = ["a fox", "an owl", "a car"]


@pytest.fixture(scope="module")
def encoder():
    words = tiny.tokenizer(32)
    return ClipEncoder("tiny", tiny.clip(words), words, {})


@pytest.fixture(scope="module")
def images(encoder):
    with torch.no_grad():
        return encoder.image_features(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_probabilities_are_the_softmax_of_the_logits(encoder, images):
    words = label_features(encoder, LABELS)
    found = probabilities(encoder, images, words)
    assert torch.allclose(found.sum(dim=1), torch.ones(2))
    assert torch.allclose(found, (images @ words.T * encoder.model.logit_scale.exp()).softmax(dim=1), atol=1e-6)


def test_templates_are_averaged_as_vectors(encoder):
    both = label_features(encoder, LABELS, ["{}", "a drawing of {}"])
    plain, drawn = encoder.text_features(LABELS), encoder.text_features([f"a drawing of {name}" for name in LABELS])
    assert torch.allclose(both, F.normalize(plain + drawn, dim=-1), atol=1e-6)


def test_guesses_come_likeliest_first(encoder, images):
    words = label_features(encoder, LABELS)
    found = classify_features(encoder, images[0], LABELS, words)
    chances = probabilities(encoder, images[:1], words)[0]
    assert [guess.probability for guess in found] == sorted(chances.tolist(), reverse=True)
    assert found[0].label == LABELS[int(chances.argmax())]
    assert {guess.similarity for guess in found} == set((words @ images[0]).tolist())


@pytest.mark.parametrize(
    "labels, templates, message",
    [
        (["a fox"], ["{}"], "labels must be two or more, got 'a fox'"),
        (["a fox", "a fox"], ["{}"], "labels must differ and not be empty, got 'a fox'"),
        (["a fox", " "], ["{}"], "labels must differ and not be empty, got ' '"),
        (LABELS, ["a photo"], r"template must hold \{\} once, got 'a photo'"),
    ],
)
def test_what_makes_no_choice_is_refused(labels, templates, message):
    with pytest.raises(SettingsError, match=f"^{message}$"):
        check_labels(labels, templates)
