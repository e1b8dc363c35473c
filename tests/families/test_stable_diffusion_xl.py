from __future__ import annotations

import diffusers
import pytest
import tiny
import torch
from parity import (
    assert_rejected,
    check,
    clipgen_images,
    copy_with_changes,
    diffusers_images,
    encode_prompt,
    max_difference,
)

from clipgen import ModelError, Pipeline
from clipgen.families import family_from_pipeline, load_family

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_xl(tmp_path_factory.mktemp("models") / "tiny-xl")


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def reference(folder):
    return diffusers.StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


@pytest.mark.parametrize(
    "options",
    [
        {"guidance_scale": 5.0},
        {"guidance_scale": 5.0, "negative_prompt": "rain"},
        {"guidance_scale": 1.0},
        {"guidance_scale": 5.0, "guidance_rescale": 0.7},
    ],
)
def test_images_equal_those_of_diffusers(pipe, reference, options):
    """The image is not square, so that the order of height and width matters. An empty negative prompt is zeros."""
    assert max_difference(clipgen_images(pipe, **options), diffusers_images(reference, **options)) <= 1e-4


def test_prompt_and_negative_prompt_change_the_images(pipe):
    images = clipgen_images(pipe)
    assert max_difference(images, clipgen_images(pipe, "an owl")) > 2 / 255
    assert max_difference(images, clipgen_images(pipe, negative_prompt="rain")) > 2 / 255


def test_from_diffusers_gives_equal_images(pipe, reference):
    assert max_difference(clipgen_images(Pipeline.from_diffusers(reference)), clipgen_images(pipe)) <= 1e-4
    text_encoder_2 = reference.text_encoder_2
    reference.text_encoder_2 = None
    with pytest.raises(ModelError, match="StableDiffusionXLPipeline has no text_encoder_2"):
        family_from_pipeline(reference)
    reference.text_encoder_2 = text_encoder_2


def test_bfloat16_images_are_close_to_float32(pipe, folder):
    half = clipgen_images(Pipeline.from_pretrained(str(folder), dtype="bfloat16"))
    assert (half - clipgen_images(pipe)).abs().mean() <= 4 / 255


def test_defaults_come_from_the_model_folder(pipe):
    assert pipe.family.defaults == {
        "steps": 30,
        "width": 32,
        "height": 32,
        "scheduler": "euler",
        "guidance_scale": 5.0,
        "eta": 0.0,
    }
    family = pipe.family
    assert family.latent_shape(96, 64) == (4, 32, 48)
    assert (family.prediction_type, family.distilled, family.sigmas(4)) == ("epsilon", False, None)
    assert family.latent_rgb.shape == (4, 3)


def conditioning(family, prompt):
    encoded = encode_prompt(prompt, family.text_encoders)
    return family.encode(encoded.embedded, is_empty=encoded.text == "")


def test_prompt_weights_change_the_states_of_both_encoders_but_not_the_pooled_embedding(pipe):
    plain, weighted = conditioning(pipe.family, "a fox in snow"), conditioning(pipe.family, "a (fox:1.5) in snow")
    assert plain["encoder_hidden_states"].shape == (1, 77, 64)
    change = (weighted["encoder_hidden_states"] - plain["encoder_hidden_states"]).abs()
    change = change[0, 3:6]  # f, o, x after start, a
    assert change[:, :32].max() > 0.1
    assert change[:, 32:].max() > 0.1
    assert torch.equal(weighted["text_embeds"], plain["text_embeds"])


def test_an_empty_prompt_is_zeros_only_if_the_model_config_says_so(pipe, folder, tmp_path):
    assert not any(tensor.any() for tensor in conditioning(pipe.family, "").values())
    other = copy_with_changes(folder, tmp_path / "model", "model_index.json", force_zeros_for_empty_prompt=False)
    family, _ = load_family(check(other), CPU, torch.float32)
    assert all(tensor.any() for tensor in conditioning(family, "").values())


@pytest.mark.parametrize(("upcast", "after"), [(True, torch.float32), (False, torch.float16)])
def test_a_vae_with_force_upcast_decodes_in_float32(folder, tmp_path, upcast, after):
    other = copy_with_changes(folder, tmp_path / "model", "vae/config.json", force_upcast=upcast)
    family, _ = load_family(check(other), CPU, torch.float16)
    assert family.vae.dtype == torch.float16
    pixels = family.decode(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert family.vae.dtype == after
    assert pixels.dtype == torch.float32
    assert pixels.isfinite().all()


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "unet/config.json",
            {"addition_time_embed_dim": 4},
            "unet expects pooled_prompt_embeds of size 56, the text encoders give 32",
        ),
        ("unet/config.json", {"addition_time_embed_dim": None}, "unet expects pooled|not a valid"),
        ("tokenizer_2/tokenizer_config.json", {"model_max_length": 32}, "tokenizer and tokenizer_2 give 77 and 32 tok"),
        ("tokenizer_2/tokenizer_config.json", {"model_max_length": 99}, "tokenizer_2 gives 99 tokens, text_encoder_2"),
        ("vae/config.json", {"latents_mean": [0, 0, 0, 0]}, "vae/config.json: latents_mean is set"),
        ("model_index.json", {"text_encoder_2": None}, "names no text_encoder_2"),
        ("model_index.json", {"tokenizer_2": [None, None]}, "names no tokenizer_2"),
        (
            "model_index.json",
            {"text_encoder_2": ["transformers", "CLIPTextModel"]},
            "clipgen loads transformers.CLIPTe",
        ),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "flow_prediction"},
            "is made for flow; models of the f",
        ),
    ],
)
def test_inconsistent_folders_raise_one_line_errors(folder, tmp_path, file, changes, message):
    assert_rejected(copy_with_changes(folder, tmp_path / "model", file, **changes), message)


def test_a_unet_without_text_time_embedding_raises_an_error(folder, tmp_path):
    other = copy_with_changes(folder, tmp_path / "model", "model_index.json")
    for path in (other / "unet").iterdir():
        path.unlink()
    tiny.unet().save_pretrained(other / "unet")
    assert_rejected(other, "addition_embed_type must be text_time, got 'None'")
