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
    results = probabilities(encoder, images, words)
    assert torch.allclose(results.sum(dim=1), torch.ones(2))
    assert torch.allclose(results, (images @ words.T * encoder.model.logit_scale.exp()).softmax(dim=1), atol=1e-6)


def test_label_features_are_the_normalised_mean_over_templates(encoder):
    both = label_features(encoder, LABELS, ["{}", "a drawing of {}"])
    plain, drawings = encoder.text_features(LABELS), encoder.text_features([f"a drawing of {name}" for name in LABELS])
    assert torch.allclose(both, F.normalize(plain + drawings, dim=-1), atol=1e-6)


def test_labels_are_sorted_by_probability(encoder, images):
    words = label_features(encoder, LABELS)
    results = classify_features(encoder, images[0], LABELS, words)
    chances = probabilities(encoder, images[:1], words)[0]
    assert [result.probability for result in results] == sorted(chances.tolist(), reverse=True)
    assert results[0].label == LABELS[int(chances.argmax())]
    assert {result.similarity for result in results} == set((words @ images[0]).tolist())


@pytest.mark.parametrize(
    "labels, templates, message",
    [
        (["a fox"], ["{}"], "labels must be two or more, got 'a fox'"),
        (["a fox", "a fox"], ["{}"], "labels must differ and not be empty, got 'a fox'"),
        (["a fox", " "], ["{}"], "labels must differ and not be empty, got ' '"),
        (LABELS, ["a photo"], r"template must contain \{\} once, got 'a photo'"),
    ],
)
def test_invalid_labels_and_templates_are_rejected(labels, templates, message):
    with pytest.raises(SettingsError, match=f"^{message}$"):
        check_labels(labels, templates)
