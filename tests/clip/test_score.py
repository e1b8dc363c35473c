from __future__ import annotations

import json
import shutil

import pytest
import tiny
import torch
import torch.nn.functional as F

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.score import Score, Scorer, load_features, percentile, read_captions, store_features
from clipgen.errors import ModelError


@pytest.fixture(scope="module")
def encoder():
    words = tiny.tokenizer(32)
    return ClipEncoder("tiny", tiny.clip(words), words, {})


@pytest.fixture
def folder(tiny_v, tmp_path):
    return shutil.copytree(tiny_v / "clip", tmp_path / "clip")


def unit_vectors(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_package_contains_a_thousand_captions():
    captions = read_captions()
    assert len(captions) == len(set(captions)) == 1000
    assert all(caption == caption.strip() != "" for caption in captions)


def test_an_image_equal_to_its_prompt_has_percentile_100():
    captions = unit_vectors(1000, 64)
    text = unit_vectors(64, seed=1)
    assert percentile(text, text, captions) == (100.0, 1000)


def test_random_pairs_have_a_mean_percentile_of_50():
    captions, texts, images = unit_vectors(1000, 64), unit_vectors(200, 64, seed=1), unit_vectors(200, 64, seed=2)
    ranks = [percentile(image, text, captions)[0] for image, text in zip(images, texts, strict=True)]
    assert sum(ranks) / len(ranks) == pytest.approx(50, abs=5)


def test_ties_count_half():
    image = unit_vectors(64)
    captions = unit_vectors(1, 64, seed=1).repeat(600, 1)
    orthogonal = F.normalize(captions[0] - (captions[0] @ image) * image, dim=0)
    assert percentile(image, captions[0], captions) == (None, 0)
    text = F.normalize(0.5 * orthogonal + (captions[0] @ image) * image, dim=0)
    scale = (captions[0] @ image) / (text @ image)
    same = text * scale
    assert percentile(image, same, captions[:, :])[0] == pytest.approx(50, abs=50)


def test_captions_close_to_the_prompt_are_excluded():
    captions = unit_vectors(1000, 64)
    near = F.normalize(captions[:300] + 0.01 * unit_vectors(300, 64, seed=5), dim=-1)
    rank, used = percentile(unit_vectors(64, seed=9), captions[0], torch.cat([near[:1], captions]))
    assert used == 999
    assert rank is not None


def test_too_few_captions_give_no_percentile():
    assert percentile(unit_vectors(64), unit_vectors(64, seed=1), unit_vectors(499, 64, seed=2)) == (None, 499)


def test_scores_hold_similarity_clip_score_and_percentile(encoder):
    scorer = Scorer(encoder, read_captions())
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    texts = ["a fox in snow", "an owl at night"]
    scores = scorer.score(pixels, texts)
    cosines = (encoder.image_features(pixels) * encoder.text_features(texts)).sum(dim=-1)
    assert [score.similarity for score in scores] == pytest.approx(cosines.tolist(), abs=1e-5)
    for score in scores:
        assert score.score == 2.5 * max(score.similarity, 0)
        assert score.model == "tiny"
        assert 0 <= score.percentile <= 100
        assert Score(**{**json.loads(json.dumps(score.to_dict())), "curve": ()}) == score


def test_stored_features_are_used_for_these_weights_and_captions_only(encoder, folder):
    captions = read_captions()
    assert load_features(folder, captions) is None
    features = unit_vectors(1000, 32).half().float()
    store_features(folder, features, captions)
    assert torch.equal(Scorer(encoder, captions, folder).caption_features, features)
    assert load_features(folder, captions[1:]) is None
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert load_features(folder, captions) is None


def test_a_scorer_stores_the_features_it_computed(encoder, folder):
    captions = read_captions()
    assert Scorer(encoder, captions).store(folder) == folder / "caption_features.safetensors"
    stored = Scorer(encoder, captions, folder).caption_features
    assert torch.allclose(stored, encoder.text_features(captions), atol=5e-4)


def test_damaged_stored_features_raise_an_error(folder):
    (folder / "caption_features.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"clip/caption_features.safetensors cannot be read"):
        load_features(folder, ["a"])
