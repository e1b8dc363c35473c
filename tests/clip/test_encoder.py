from __future__ import annotations

import json

import numpy
import pytest
import tiny
import tiny_siglip
import torch
import torch.nn.functional as F
from PIL import Image

from clipgen.clip.encoder import ClipEncoder, within_patches


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
        theirs = encoder.model(**tokens, pixel_values=encoder.preprocess(pixels)).logits_per_image
        ours = encoder.logits(encoder.image_features(pixels), encoder.text_features(texts))
    assert torch.allclose(ours, theirs, atol=1e-4)


def fresh():
    words = tiny.tokenizer(32)
    return ClipEncoder("tiny", tiny.clip(words), words, {})


def test_texts_do_not_feel_the_batch_they_are_in():
    texts = ["a fox", *(f"an owl at night in forest {k}" for k in range(199))]
    together = fresh().text_features(texts)
    assert together.shape == (200, 32)
    assert torch.allclose(together[:1], fresh().text_features(["a fox"]), atol=1e-6)


def test_texts_are_encoded_once(monkeypatch):
    encoder, asked = fresh(), []
    real = encoder.model.get_text_features

    def counted(**inputs):
        asked.append(len(inputs["input_ids"]))
        return real(**inputs)

    monkeypatch.setattr(encoder.model, "get_text_features", counted)
    first = encoder.text_features(["a fox", "an owl", "a fox"])
    assert torch.equal(first[0], first[2])
    assert torch.equal(encoder.text_features(["an owl", "a cat"])[0], first[1])
    assert asked == [2, 1]


def test_only_so_many_texts_are_kept(monkeypatch):
    monkeypatch.setattr("clipgen.clip.encoder.TEXTS_KEPT", 3)
    encoder = fresh()
    features = encoder.text_features([f"fox {k}" for k in range(5)])
    assert features.shape == (5, 32)
    assert list(encoder._kept) == ["fox 2", "fox 3", "fox 4"]


def test_long_texts_are_cut(encoder):
    assert torch.allclose(encoder.text_features(["a " * 200]), encoder.text_features(["a " * 30]), atol=1e-6)


SIZES = [(32, 32), (128, 128), (64, 96), (97, 41), (20, 20), (33, 32), (31, 90)]
SQUARE = {"height": 32, "width": 32}


def levels_of(size):
    """8-bit pictures [1, 3, H, W], half of it smooth, half of it noise."""
    smooth = F.interpolate(pictures(1, 5, 7), size, mode="bilinear")
    noisy = pictures(1, *size)
    noisy[..., : size[1] // 2] = smooth[..., : size[1] // 2]
    return (noisy * 255).round().to(torch.uint8)


def image_of(levels):
    return Image.fromarray(levels[0].permute(1, 2, 0).numpy())


def clip_processor(**changes):
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(**{"size": {"shortest_edge": 32}, "crop_size": SQUARE, **changes})


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "changes",
    [{}, {"resample": 2}, {"size": {"shortest_edge": 40}}, {"size": SQUARE}],
    ids=["cubic", "linear", "wider", "squeezed"],
)
def test_pictures_are_seen_as_transformers_sees_them(size, changes):
    if changes.get("size", {}).get("shortest_edge") and size == (32, 32):
        pytest.skip("a picture of CLIP's own side is taken as it is")
    processor, words, levels = clip_processor(**changes), tiny.tokenizer(32), levels_of(size)
    encoder = ClipEncoder("tiny", tiny.clip(words), words, json.loads(processor.to_json_string()))
    theirs = torch.from_numpy(numpy.stack(processor(image_of(levels), return_tensors="np")["pixel_values"]))
    assert (encoder.preprocess(levels / 255) - theirs).abs().max() <= 1e-5
    assert (encoder.preprocess(encoder.to_pixels(image_of(levels))[None]) - theirs).abs().max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_features_of_pictures_are_transformers_own_with_their_processor(encoder, size):
    levels = levels_of(size)
    with torch.no_grad():
        pixel_values = clip_processor()(image_of(levels), return_tensors="pt")["pixel_values"]
        theirs = F.normalize(encoder.model.get_image_features(pixel_values).pooler_output, dim=-1)
        assert torch.allclose(encoder.image_features(levels / 255), theirs, atol=1e-4)
        assert torch.allclose(encoder.image_features(encoder.to_pixels(image_of(levels))[None]), theirs, atol=1e-4)


def test_of_a_line_only_the_middle_is_enlarged(encoder):
    levels = torch.arange(40_000).remainder(256).to(torch.uint8).expand(1, 3, 1, 40_000)
    assert encoder.to_pixels(image_of(levels)).shape == (3, 32, 32)
    short = levels[..., 19_000:21_000]
    assert torch.equal(encoder.to_pixels(image_of(levels)), encoder.to_pixels(image_of(short)))


def test_the_preprocessors_numbers_win(tiny_v):
    words = tiny.tokenizer(32)
    known = json.loads((tiny_v / "clip" / "preprocessor_config.json").read_text())
    plain = ClipEncoder("tiny", tiny.clip(words), words, {**known, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]})
    pixels = pictures(1, 32, 32)
    assert torch.equal(plain.preprocess(pixels), pixels)


def test_gradients_reach_the_pixels(encoder):
    pixels = pictures(1, 48, 48).requires_grad_()
    encoder.image_features(pixels).sum().backward()
    assert (pixels.grad.abs() > 0).float().mean() > 0.9


def test_gradients_pass_the_rounding_as_a_linear_map(encoder):
    pixels = (0.2 + 0.6 * pictures(1, 48, 64)).requires_grad_()
    weight = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((encoder.preprocess(pixels) * weight).sum(), pixels)
    smooth = F.interpolate(pixels, (32, 42), mode="bicubic", antialias=True)[..., 5:37]
    (expected,) = torch.autograd.grad((smooth / encoder.std * weight).sum(), pixels)
    assert torch.allclose(gradient, expected, atol=1e-4)


SIGLIPS = [("siglip", True), ("siglip", False), ("siglip2", False)]  # the model's type, and whether it is the first


@pytest.fixture(scope="module", params=SIGLIPS, ids=["siglip", "siglip-2", "siglip-2-naflex"])
def siglip(request):
    kind, is_first = request.param
    resample = {"resample": 2} if kind == "siglip2" else {}
    return ClipEncoder(kind, tiny_siglip.model(kind), tiny_siglip.tokenizer(is_first), resample)


def siglip_processor(siglip):
    from transformers import Siglip2ImageProcessorPil, SiglipImageProcessorPil

    if siglip.kind == "siglip2":
        return Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    return SiglipImageProcessorPil(size=SQUARE, resample=3)


@pytest.mark.parametrize("size", SIZES)
def test_siglip_is_transformers_own(siglip, size):
    """Features and logits, with their processor or ours, for pictures of any shape."""
    levels, texts = levels_of(size), ["a fox", "an owl"]
    tokens = siglip.tokenizer(texts, padding="max_length", max_length=16, return_tensors="pt")
    with torch.no_grad():
        inputs = siglip_processor(siglip)(image_of(levels), return_tensors="pt")
        theirs = siglip.model(**inputs, input_ids=tokens.input_ids)
        words = siglip.text_features(texts)
        for seen in (levels / 255, siglip.to_pixels(image_of(levels))[None]):
            features = siglip.image_features(seen)
            assert torch.allclose(features, theirs.image_embeds, atol=1e-4)
            assert torch.allclose(siglip.logits(features, words), theirs.logits_per_image, atol=1e-4)
    assert torch.allclose(words, theirs.text_embeds, atol=1e-4)


def test_siglip_squeezes_the_whole_picture_and_its_variant_keeps_the_shape(siglip):
    shape = siglip.preprocess(levels_of((40, 128)) / 255).shape
    assert shape == ((1, 3, 16, 56) if siglip.kind == "siglip2" else (1, 3, 32, 32))


@pytest.mark.parametrize("most", [4, 16, 256])
@pytest.mark.parametrize("size", [(32, 32), (40, 128), (1, 5), (977, 31), (300, 200)])
def test_sizes_in_patches_are_transformers_own(size, most):
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

    assert within_patches(*size, 8, most) == get_image_size_for_max_num_patches(*size, 8, most)
    assert within_patches(*within_patches(*size, 8, most), 8, most) == within_patches(*size, 8, most)


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
