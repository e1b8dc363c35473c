from __future__ import annotations

import json

import numpy
import pytest
import tiny
import tiny_siglip
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


SIGLIPS = [("siglip", True), ("siglip", False), ("siglip2", False)]  # the model's type, and whether it is the first


@pytest.fixture(scope="module", params=SIGLIPS, ids=["siglip", "siglip-2", "siglip-2-naflex"])
def siglip(request):
    kind, is_first = request.param
    resample = {"resample": 2} if kind == "siglip2" else {}
    return ClipEncoder(kind, tiny_siglip.model(kind), tiny_siglip.tokenizer(is_first), resample)


def test_siglips_features_are_transformers_own(siglip):
    from transformers import Siglip2ImageProcessorPil, SiglipImageProcessorPil

    naflex = siglip.kind == "siglip2"
    processor = (
        Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
        if naflex
        else SiglipImageProcessorPil(size={"height": 32, "width": 32})
    )
    levels = (pictures(2, 32, 32) * 255).round().to(torch.uint8)
    images = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in levels]
    tokens = siglip.tokenizer(["a fox", "an owl"], padding="max_length", max_length=16, return_tensors="pt")
    with torch.no_grad():
        theirs = siglip.model(**processor(images, return_tensors="pt"), input_ids=tokens.input_ids)
        ours = siglip.image_features(levels / 255), siglip.text_features(["a fox", "an owl"])
    assert torch.allclose(ours[0], theirs.image_embeds, atol=1e-4)
    assert torch.allclose(ours[1], theirs.text_embeds, atol=1e-4)


def test_siglip_sees_the_whole_picture_squeezed(siglip):
    smooth = F.interpolate(pictures(1, 5, 7), (40, 64), mode="bilinear")
    squeezed = F.interpolate(smooth, (32, 32), mode="bicubic", antialias=True)
    assert siglip.see(smooth).shape == (1, 3, 32, 32)
    assert (siglip.see(smooth) / 2 + 0.5 - squeezed).abs().max() < 0.05


def test_siglip_reads_lower_case_and_the_first_one_no_punctuation(siglip):
    is_first = type(siglip.tokenizer.backend_tokenizer.model).__name__ == "Unigram"
    capital, plain, loud = siglip.text_features(["A Fox", "a fox", "a fox!"])
    assert torch.allclose(capital, plain, atol=1e-6)
    assert torch.allclose(loud, plain, atol=1e-6) is is_first


def test_long_texts_are_cut_for_siglip_too(siglip):
    assert torch.equal(siglip.text_features(["a " * 200]), siglip.text_features(["a " * 30]))


def test_gradients_reach_the_pixels_through_siglip(siglip):
    pixels = pictures(1, 32, 32).requires_grad_()
    siglip.image_features(pixels)[0, 0].backward()
    assert (pixels.grad.abs() > 0).float().mean() > 0.9
