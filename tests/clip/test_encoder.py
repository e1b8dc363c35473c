from __future__ import annotations

import json

import numpy
import pytest
import tiny
import tiny_siglip
import torch
import torch.nn.functional as F
from PIL import Image

from clipgen.clip.encoder import ClipEncoder, naflex_size


@pytest.fixture(scope="module")
def encoder():
    words = tiny.tokenizer(32)
    return ClipEncoder("tiny", tiny.clip(words), words, {})


def random_images(count, height, width):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_features_are_unit_vectors(encoder):
    assert torch.allclose(encoder.text_features(["a fox", "an owl at night"]).norm(dim=-1), torch.ones(2))
    assert torch.allclose(encoder.image_features(random_images(3, 40, 50)).norm(dim=-1), torch.ones(3))


def test_logits_equal_transformers_logits_per_image(encoder):
    texts = ["a fox", "an owl at night"]
    pixels = random_images(2, 32, 32)
    tokens = encoder.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = encoder.model(**tokens, pixel_values=encoder.preprocess(pixels)).logits_per_image
        ours = encoder.logits(encoder.image_features(pixels), encoder.text_features(texts))
    assert torch.allclose(ours, expected, atol=1e-4)


def new_encoder():
    words = tiny.tokenizer(32)
    return ClipEncoder("tiny", tiny.clip(words), words, {})


def test_text_features_do_not_depend_on_the_batch():
    texts = ["a fox", *(f"an owl at night in forest {k}" for k in range(199))]
    together = new_encoder().text_features(texts)
    assert together.shape == (200, 32)
    assert torch.allclose(together[:1], new_encoder().text_features(["a fox"]), atol=1e-6)


def test_each_text_is_encoded_once(monkeypatch):
    encoder, batch_sizes = new_encoder(), []
    original = encoder.model.get_text_features

    def counting(**inputs):
        batch_sizes.append(len(inputs["input_ids"]))
        return original(**inputs)

    monkeypatch.setattr(encoder.model, "get_text_features", counting)
    first = encoder.text_features(["a fox", "an owl", "a fox"])
    assert torch.equal(first[0], first[2])
    assert torch.equal(encoder.text_features(["an owl", "a cat"])[0], first[1])
    assert batch_sizes == [2, 1]


def test_the_text_cache_drops_the_oldest_texts(monkeypatch):
    monkeypatch.setattr("clipgen.clip.encoder.MAX_CACHED_TEXTS", 3)
    encoder = new_encoder()
    features = encoder.text_features([f"fox {k}" for k in range(5)])
    assert features.shape == (5, 32)
    assert list(encoder._text_cache) == ["fox 2", "fox 3", "fox 4"]


def test_long_texts_are_truncated(encoder):
    assert torch.allclose(encoder.text_features(["a " * 200]), encoder.text_features(["a " * 30]), atol=1e-6)


SIZES = [(32, 32), (128, 128), (64, 96), (97, 41), (20, 20), (33, 32), (31, 90)]
SQUARE = {"height": 32, "width": 32}


def random_levels(size):
    """Returns an 8-bit image [1, 3, H, W], one half smooth and one half noise."""
    smooth = F.interpolate(random_images(1, 5, 7), size, mode="bilinear")
    noisy = random_images(1, *size)
    noisy[..., : size[1] // 2] = smooth[..., : size[1] // 2]
    return (noisy * 255).round().to(torch.uint8)


def pil_image(levels):
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
def test_preprocessing_equals_the_transformers_processor(size, changes):
    if changes.get("size", {}).get("shortest_edge") and size == (32, 32):
        pytest.skip("an image of the model's own size is not resized")
    processor, words, levels = clip_processor(**changes), tiny.tokenizer(32), random_levels(size)
    encoder = ClipEncoder("tiny", tiny.clip(words), words, json.loads(processor.to_json_string()))
    expected = torch.from_numpy(numpy.stack(processor(pil_image(levels), return_tensors="np")["pixel_values"]))
    assert (encoder.preprocess(levels / 255) - expected).abs().max() <= 1e-5
    assert (encoder.preprocess(encoder.to_pixels(pil_image(levels))[None]) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_image_features_equal_those_of_transformers_with_its_processor(encoder, size):
    levels = random_levels(size)
    with torch.no_grad():
        pixel_values = clip_processor()(pil_image(levels), return_tensors="pt")["pixel_values"]
        expected = F.normalize(encoder.model.get_image_features(pixel_values).pooler_output, dim=-1)
        assert torch.allclose(encoder.image_features(levels / 255), expected, atol=1e-4)
        assert torch.allclose(encoder.image_features(encoder.to_pixels(pil_image(levels))[None]), expected, atol=1e-4)


def test_only_the_middle_of_an_extremely_long_image_is_resized(encoder):
    levels = torch.arange(40_000).remainder(256).to(torch.uint8).expand(1, 3, 1, 40_000)
    assert encoder.to_pixels(pil_image(levels)).shape == (3, 32, 32)
    short = levels[..., 19_000:21_000]
    assert torch.equal(encoder.to_pixels(pil_image(levels)), encoder.to_pixels(pil_image(short)))


def test_mean_and_std_come_from_the_preprocessor_config(tiny_v):
    words = tiny.tokenizer(32)
    config = json.loads((tiny_v / "clip" / "preprocessor_config.json").read_text())
    plain = ClipEncoder("tiny", tiny.clip(words), words, {**config, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]})
    pixels = random_images(1, 32, 32)
    assert torch.equal(plain.preprocess(pixels), pixels)


def test_gradients_reach_the_pixels(encoder):
    pixels = random_images(1, 48, 48).requires_grad_()
    encoder.image_features(pixels).sum().backward()
    assert (pixels.grad.abs() > 0).float().mean() > 0.9


def test_gradients_skip_the_rounding(encoder):
    pixels = (0.2 + 0.6 * random_images(1, 48, 64)).requires_grad_()
    weight = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((encoder.preprocess(pixels) * weight).sum(), pixels)
    smooth = F.interpolate(pixels, (32, 42), mode="bicubic", antialias=True)[..., 5:37]
    (expected,) = torch.autograd.grad((smooth / encoder.std * weight).sum(), pixels)
    assert torch.allclose(gradient, expected, atol=1e-4)


SIGLIPS = [("siglip", True), ("siglip", False), ("siglip2", False)]  # the model_type, and whether it is SigLIP 1


@pytest.fixture(scope="module", params=SIGLIPS, ids=["siglip", "siglip-2", "siglip-2-naflex"])
def siglip(request):
    kind, is_siglip1 = request.param
    resample = {"resample": 2} if kind == "siglip2" else {}
    return ClipEncoder(kind, tiny_siglip.model(kind), tiny_siglip.tokenizer(is_siglip1), resample)


def siglip_processor(siglip):
    from transformers import Siglip2ImageProcessorPil, SiglipImageProcessorPil

    if siglip.kind == "siglip2":
        return Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    return SiglipImageProcessorPil(size=SQUARE, resample=3)


@pytest.mark.parametrize("size", SIZES)
def test_siglip_features_and_logits_equal_those_of_transformers(siglip, size):
    """The images are preprocessed by transformers or by clipgen."""
    levels, texts = random_levels(size), ["a fox", "an owl"]
    tokens = siglip.tokenizer(texts, padding="max_length", max_length=16, return_tensors="pt")
    with torch.no_grad():
        inputs = siglip_processor(siglip)(pil_image(levels), return_tensors="pt")
        expected = siglip.model(**inputs, input_ids=tokens.input_ids)
        words = siglip.text_features(texts)
        for pixels in (levels / 255, siglip.to_pixels(pil_image(levels))[None]):
            features = siglip.image_features(pixels)
            assert torch.allclose(features, expected.image_embeds, atol=1e-4)
            assert torch.allclose(siglip.logits(features, words), expected.logits_per_image, atol=1e-4)
    assert torch.allclose(words, expected.text_embeds, atol=1e-4)


def test_siglip_squeezes_the_image_and_siglip2_naflex_keeps_its_aspect_ratio(siglip):
    shape = siglip.preprocess(random_levels((40, 128)) / 255).shape
    assert shape == ((1, 3, 16, 56) if siglip.kind == "siglip2" else (1, 3, 32, 32))


@pytest.mark.parametrize("max_num_patches", [4, 16, 256])
@pytest.mark.parametrize("size", [(32, 32), (40, 128), (1, 5), (977, 31), (300, 200)])
def test_naflex_sizes_equal_those_of_transformers(size, max_num_patches):
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

    assert naflex_size(*size, 8, max_num_patches) == get_image_size_for_max_num_patches(*size, 8, max_num_patches)
    assert naflex_size(*naflex_size(*size, 8, max_num_patches), 8, max_num_patches) == naflex_size(
        *size, 8, max_num_patches
    )


def test_siglip_ignores_case_and_siglip1_also_punctuation(siglip):
    is_siglip1 = type(siglip.tokenizer.backend_tokenizer.model).__name__ == "Unigram"
    upper, plain, punctuated = siglip.text_features(["A Fox", "a fox", "a fox!"])
    assert torch.allclose(upper, plain, atol=1e-6)
    assert torch.allclose(punctuated, plain, atol=1e-6) is is_siglip1


def test_long_texts_are_truncated_for_siglip(siglip):
    assert torch.equal(siglip.text_features(["a " * 200]), siglip.text_features(["a " * 30]))


def test_gradients_reach_the_pixels_through_siglip(siglip):
    pixels = random_images(1, 32, 32).requires_grad_()
    siglip.image_features(pixels)[0, 0].backward()
    assert (pixels.grad.abs() > 0).float().mean() > 0.9
