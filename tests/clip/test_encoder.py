from __future__ import annotations

import json

import numpy
import pytest
import tiny
import torch
import torch.nn.functional as F
from PIL import Image

from clipgen.clip.encoder import MEAN, STD, ClipEncoder


@pytest.fixture(scope="module")
def encoder():
    words = tiny.tokenizer(32)
    return ClipEncoder("tiny", tiny.clip(words), words, {})


def pictures(count, height, width):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_features_are_unit_vectors(encoder):
    assert torch.allclose(encoder.text_features(["a fox", "an owl at night"]).norm(dim=-1), torch.ones(2))
    assert torch.allclose(encoder.image_features(pictures(3, 40, 50)).norm(dim=-1), torch.ones(3))


def test_logits_are_transformers_own(encoder):
    texts = ["a fox", "an owl at night"]
    pixels = pictures(2, 32, 32)
    tokens = encoder.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = encoder.model(**tokens, pixel_values=encoder.see(pixels)).logits_per_image
        ours = encoder.image_features(pixels) @ encoder.text_features(texts).T * encoder.model.logit_scale.exp()
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_texts_do_not_feel_the_batch_they_are_in(encoder):
    texts = ["a fox", "an owl at night in a forest"] * 100
    together = encoder.text_features(texts)
    assert together.shape == (200, 32)
    assert torch.allclose(together[:1], encoder.text_features(["a fox"]), atol=1e-6)


def test_long_texts_are_cut(encoder):
    assert torch.allclose(encoder.text_features(["a " * 200]), encoder.text_features(["a " * 30]), atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (128, 128), (64, 96), (97, 41), (20, 20)])
def test_pictures_are_seen_as_transformers_sees_them(encoder, size):
    from transformers import CLIPImageProcessorPil

    smooth = F.interpolate(pictures(1, 5, 7), size, mode="bilinear")[0]
    levels = (smooth * 255).round().to(torch.uint8)
    image = Image.fromarray(levels.permute(1, 2, 0).numpy())
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD
    )
    theirs = processor(image, return_tensors="np")["pixel_values"][0]
    ours = encoder.see(levels[None] / 255)[0]
    assert ours.shape == theirs.shape
    assert numpy.abs(ours.numpy() - theirs).max() <= 2 / 255 / min(STD)


def test_the_preprocessors_numbers_win(tiny_v):
    words = tiny.tokenizer(32)
    known = json.loads((tiny_v / "clip" / "preprocessor_config.json").read_text())
    plain = ClipEncoder("tiny", tiny.clip(words), words, {**known, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]})
    pixels = pictures(1, 32, 32)
    assert torch.equal(plain.see(pixels), pixels)


def test_gradients_reach_the_pixels(encoder):
    pixels = pictures(1, 48, 48).requires_grad_()
    encoder.image_features(pixels).sum().backward()
    assert pixels.grad.abs().sum() > 0
