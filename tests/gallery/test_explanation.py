"""Explanations: the image is reproduced, attention maps sum to one, and maps are high where the word is."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from PIL import Image

from clipgen import Pipeline, Settings, SettingsError, explain, explain_image
from clipgen.families.attention import AttentionMaps, recording_attention
from clipgen.gallery.explain_sheet import heat_image, render_sheet
from clipgen.gallery.explanation import words_with_tokens
from clipgen.text import tokenize_prompt

from .conftest import CAR, FOX, STEPS

SMALL = Settings(prompt="a red (fox:1.3)", seed=3, steps=3, width=64, height=96)


@pytest.fixture(scope="module")
def with_clip(tiny_v):
    return Pipeline.from_pretrained(str(tiny_v))


@pytest.fixture(scope="module")
def without_clip(tiny_epsilon):
    return Pipeline.from_pretrained(str(tiny_epsilon))


@pytest.mark.parametrize("changes", [{}, {"guidance": "clip", "clip_guidance_scale": 0.5}, {"guidance_scale": 1.0}])
def test_recording_keeps_the_image_and_attention_sums_to_one_per_step_and_layer(with_clip, changes):
    settings = SMALL.replace(**changes)
    maps = AttentionMaps(with_clip.encode_prompt(settings)["encoder_hidden_states"], (12, 8))
    processors = dict(with_clip.family.denoiser.attn_processors)
    with recording_attention(with_clip.family, maps):
        [replayed] = with_clip.run(settings)
    layers = sum(".attn2." in name for name in processors)
    assert torch.allclose(maps.total.sum(dim=0), torch.full((12, 8), 3.0 * layers), rtol=1e-3)
    assert torch.equal(replayed.pixels, with_clip.run(settings)[0].pixels)
    assert with_clip.family.denoiser.attn_processors == processors


def test_an_explanation_has_words_maps_and_drops(with_clip):
    explanation = explain(with_clip, SMALL)
    assert (explanation.text, explanation.words, explanation.source) == (
        "a red fox",
        ("a", "red", "fox"),
        "cross-attention",
    )
    assert explanation.maps.shape == (3, 12, 8)
    assert (explanation.maps.amin(dim=(1, 2)) == 0).all()
    assert (explanation.maps.amax(dim=(1, 2)) == 1).all()
    assert len(explanation.drops) == 3
    assert explanation.image.size == (64, 96)
    assert explanation.image.tobytes() == with_clip.run(SMALL)[0].image.tobytes()


def test_settings_for_several_images_explain_one(with_clip):
    settings = Settings(prompt="a {fox|fox} ", images=3, steps=3, guidance="pick", candidates=2, width=64, height=64)
    assert explain(with_clip, settings).words == ("a", "fox")


def test_without_a_clip_there_are_maps_but_no_drops(without_clip):
    explanation = explain(without_clip, SMALL)
    assert (explanation.maps.shape, explanation.drops, explanation.similarity) == ((3, 48, 32), None, None)
    assert [each["drop"] for each in explanation.to_dict()["words"]] == [None] * 3


def test_sdxl_has_cross_attention_maps(tmp_path):
    pipe = Pipeline.from_pretrained(str(tiny.save_xl(tmp_path / "tiny-xl")))
    explanation = explain(pipe, SMALL)
    assert (explanation.source, explanation.words, explanation.maps.shape) == (
        "cross-attention",
        ("a", "red", "fox"),
        (3, 48, 32),
    )


def test_a_model_without_cross_attention_and_clip_raises_an_error(tmp_path):
    pipe = Pipeline.from_pretrained(str(tiny.save_sd3(tmp_path / "tiny-sd3")))
    with pytest.raises(SettingsError, match="has no cross-attention and no CLIP"):
        explain(pipe, SMALL)


def test_a_text_without_words_is_rejected(with_clip, clip):
    for ask in (lambda: explain(with_clip, SMALL.replace(prompt="!?")), lambda: explain_image(IMAGE, "!?", model=clip)):
        with pytest.raises(SettingsError, match=r"prompt must contain a word, got '!\?'"):
            ask()


IMAGE = Image.new("RGB", (96, 64), "white")


def test_truncated_words_have_no_map(with_clip):
    text_encoder = with_clip.family.text_encoders[0]
    spans, tokens = words_with_tokens(tokenize_prompt("fox " * 40, [text_encoder]), text_encoder)
    assert 0 < len(spans) == len(tokens) < 40
    assert max(map(max, tokens)) < text_encoder.max_length


def test_words_of_later_windows_have_a_map(with_clip):
    text_encoder = with_clip.family.text_encoders[0]
    prompt = tokenize_prompt("  a fox BREAK snow", [text_encoder], long_prompt="chunk")
    spans, tokens = words_with_tokens(prompt, text_encoder)
    assert spans == [(0, 1), (2, 5), (6, 10)]
    assert tokens == [[1], [2, 3, 4], [33, 34, 35, 36]]  # one token per letter, 32 in a window
    explanation = explain(with_clip, SMALL.replace(prompt="a fox BREAK snow", long_prompt="chunk"))
    assert explanation.words == ("a", "fox", "snow")


def test_maps_in_json_are_small(with_clip):
    explanation = explain(with_clip, SMALL)
    data = json.loads(json.dumps(explanation.to_dict()))
    assert [each["word"] for each in data["words"]] == ["a", "red", "fox"]
    assert (len(data["words"][0]["map"]), len(data["words"][0]["map"][0])) == (12, 8)
    assert data["source"] == "cross-attention"


def test_storybook_attends_to_the_fox_and_the_score_falls_without_the_word(storybook):
    explanation = explain(storybook, Settings(prompt=FOX, seed=7, steps=STEPS))
    fox, snow = (explanation.maps[explanation.words.index(word)] for word in ("fox", "snow"))
    middle = torch.zeros(16, 16, dtype=torch.bool)
    middle[4:12, 4:12] = True
    assert fox[middle].mean() > fox[~middle].mean() + 0.1
    assert fox[middle].mean() > snow[middle].mean()
    drops = dict(zip(explanation.words, explanation.drops, strict=True))
    assert drops["fox"] > 0.1
    assert abs(drops["in"]) < 0.1


def test_patch_similarity_is_high_where_the_object_is(generated, clip):
    both = Image.new("RGB", (512, 256))
    for k, text in enumerate((FOX, CAR)):
        with Image.open(generated[text]) as image:
            both.paste(image.resize((256, 256)), (256 * k, 0))
    explanation = explain_image(both, "fox car", model=clip)
    assert (explanation.source, explanation.maps.shape) == ("patch similarity", (2, 7, 14))
    left, right = explanation.maps[..., :7].mean(dim=(1, 2)), explanation.maps[..., 7:].mean(dim=(1, 2))
    assert left[0] > right[0]
    assert right[1] > left[1]


def test_a_heat_image_is_bright_where_the_map_is_high_and_dark_elsewhere():
    heat = torch.zeros(4, 4)
    heat[:, 2:] = 1
    result = heat_image(IMAGE, heat)
    assert result.size == IMAGE.size
    assert max(result.getpixel((2, 32))) < 80
    assert min(result.getpixel((93, 32))[:1]) > 220


def test_the_sheet_has_one_tile_per_word(with_clip):
    explanation = explain(with_clip, SMALL)
    assert render_sheet(explanation).width > render_sheet(explanation).height
    assert render_sheet(explanation).getbbox() is not None
