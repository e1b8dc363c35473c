"""Word maps: the replay is the picture, the maps add up, and they light what the word names."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from PIL import Image

from clipgen import Pipeline, Settings, SettingsError, explain, explain_image
from clipgen.families.attention import WordAttention, listening
from clipgen.gallery.explain_sheet import heat_picture, sheet
from clipgen.gallery.explanation import words_read

from .conftest import CAR, FOX, STEPS

SMALL = Settings(prompt="a red (fox:1.3)", seed=3, steps=3, width=64, height=96)


@pytest.fixture(scope="module")
def with_clip(tiny_v):
    return Pipeline.from_pretrained(str(tiny_v))


@pytest.fixture(scope="module")
def without_clip(tiny_epsilon):
    return Pipeline.from_pretrained(str(tiny_epsilon))


@pytest.mark.parametrize("changes", [{}, {"guidance": "clip", "clip_guidance_scale": 0.5}, {"guidance_scale": 1.0}])
def test_the_replay_is_the_picture_and_each_place_pays_once_a_step_and_layer(with_clip, changes):
    settings = SMALL.replace(**changes)
    heard = WordAttention(with_clip.encode_prompt(settings)["encoder_hidden_states"], (12, 8))
    before = dict(with_clip.family.denoiser.attn_processors)
    with listening(with_clip.family, heard):
        [replayed] = with_clip.run(settings)
    layers = sum(".attn2." in name for name in before)
    assert torch.allclose(heard.total.sum(dim=0), torch.full((12, 8), 3.0 * layers), rtol=1e-3)
    assert torch.equal(replayed.pixels, with_clip.run(settings)[0].pixels)
    assert with_clip.family.denoiser.attn_processors == before


def test_an_explanation_holds_words_maps_and_drops(with_clip):
    found = explain(with_clip, SMALL)
    assert (found.text, found.words, found.source) == ("a red fox", ("a", "red", "fox"), "cross-attention")
    assert found.maps.shape == (3, 12, 8)
    assert (found.maps.amin(dim=(1, 2)) == 0).all()
    assert (found.maps.amax(dim=(1, 2)) == 1).all()
    assert len(found.drops) == 3
    assert found.image.size == (64, 96)
    assert found.image.tobytes() == with_clip.run(SMALL)[0].image.tobytes()


def test_settings_with_everything_open_are_one_picture(with_clip):
    chosen = Settings(prompt="a {fox|fox} ", images=3, steps=3, guidance="pick", candidates=2, width=64, height=64)
    assert explain(with_clip, chosen).words == ("a", "fox")


def test_a_model_without_a_clip_has_maps_and_no_drops(without_clip):
    found = explain(without_clip, SMALL)
    assert (found.maps.shape, found.drops, found.similarity) == ((3, 48, 32), None, None)
    assert [each["drop"] for each in found.to_dict()["words"]] == [None] * 3


def test_sdxl_has_maps_too(tmp_path):
    pipe = Pipeline.from_pretrained(str(tiny.save_xl(tmp_path / "tiny-xl")))
    found = explain(pipe, SMALL)
    assert (found.source, found.words, found.maps.shape) == ("cross-attention", ("a", "red", "fox"), (3, 48, 32))


def test_without_cross_attention_and_clip_it_says_so(tmp_path):
    pipe = Pipeline.from_pretrained(str(tiny.save_sd3(tmp_path / "tiny-sd3")))
    with pytest.raises(SettingsError, match="has no cross-attention and no CLIP"):
        explain(pipe, SMALL)


def test_a_text_without_words_is_refused(with_clip, clip):
    for ask in (lambda: explain(with_clip, SMALL.replace(prompt="!?")), lambda: explain_image(clip, IMAGE, "!?")):
        with pytest.raises(SettingsError, match=r"prompt must hold a word, got '!\?'"):
            ask()


IMAGE = Image.new("RGB", (96, 64), "white")


def test_words_past_the_limit_have_no_map(with_clip):
    tower = with_clip.family.text_encoders[0]
    spans, tokens = words_read("fox " * 40, tower)
    assert 0 < len(spans) == len(tokens) < 40
    assert max(map(max, tokens)) < tower.length


def test_json_is_small_whatever_the_maps(with_clip):
    found = explain(with_clip, SMALL)
    told = json.loads(json.dumps(found.to_dict()))
    assert [each["word"] for each in told["words"]] == ["a", "red", "fox"]
    assert (len(told["words"][0]["map"]), len(told["words"][0]["map"][0])) == (12, 8)
    assert told["source"] == "cross-attention"


def test_storybook_looks_for_the_fox_in_the_middle_and_clip_misses_it_when_left_out(storybook):
    found = explain(storybook, Settings(prompt=FOX, seed=7, steps=STEPS))
    fox, snow = (found.maps[found.words.index(word)] for word in ("fox", "snow"))
    middle = torch.zeros(16, 16, dtype=torch.bool)
    middle[4:12, 4:12] = True
    assert fox[middle].mean() > fox[~middle].mean() + 0.1
    assert fox[middle].mean() > snow[middle].mean()
    drops = dict(zip(found.words, found.drops, strict=True))
    assert drops["fox"] > 0.1
    assert abs(drops["in"]) < 0.1


def test_patches_that_look_like_a_word_are_where_it_is(drawn, clip):
    both = Image.new("RGB", (256, 128))
    for k, text in enumerate((FOX, CAR)):
        with Image.open(drawn[text]) as image:
            both.paste(image, (128 * k, 0))
    found = explain_image(clip, both, "fox car")
    assert (found.source, found.maps.shape) == ("patch similarity", (2, 7, 14))
    left, right = found.maps[..., :7].mean(dim=(1, 2)), found.maps[..., 7:].mean(dim=(1, 2))
    assert left[0] > right[0]
    assert right[1] > left[1]


def test_heat_keeps_the_picture_where_it_is_hot_and_darkens_the_rest():
    heat = torch.zeros(4, 4)
    heat[:, 2:] = 1
    lit = heat_picture(IMAGE, heat)
    assert lit.size == IMAGE.size
    assert max(lit.getpixel((2, 32))) < 80
    assert min(lit.getpixel((93, 32))[:1]) > 220


def test_the_sheet_has_a_tile_a_word(with_clip):
    found = explain(with_clip, SMALL)
    assert sheet(found).width > sheet(found).height
    assert sheet(found).getbbox() is not None
