from __future__ import annotations

import diffusers
import pytest
import tiny
import torch
from parity import apart, check, ours, refused, spoiled, theirs

from clipgen import ModelError, Pipeline
from clipgen.families import family_from_pipeline, load_family
from clipgen.text import encode_prompt

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_xl(tmp_path_factory.mktemp("models") / "tiny-xl")


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def peer(folder):
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
def test_the_picture_is_diffusers_own(pipe, peer, options):
    """Not square, so that the order of height and width matters; without a negative prompt it is zeros."""
    assert apart(ours(pipe, **options), theirs(peer, **options)) <= 1e-4


def test_everything_told_is_seen(pipe):
    picture = ours(pipe)
    assert apart(picture, ours(pipe, "an owl")) > 2 / 255
    assert apart(picture, ours(pipe, negative_prompt="rain")) > 2 / 255


def test_a_loaded_pipeline_is_taken_over(pipe, peer):
    assert apart(ours(Pipeline.from_diffusers(peer)), ours(pipe)) <= 1e-4
    kept = peer.text_encoder_2
    peer.text_encoder_2 = None
    with pytest.raises(ModelError, match="StableDiffusionXLPipeline has no text_encoder_2"):
        family_from_pipeline(peer)
    peer.text_encoder_2 = kept


def test_half_precision_draws_nearly_the_same(pipe, folder):
    half = ours(Pipeline.from_pretrained(str(folder), dtype="bfloat16"))
    assert (half - ours(pipe)).abs().mean() <= 4 / 255


def test_the_defaults_are_the_models_own(pipe):
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


def test_weights_act_on_the_tokens_of_both_encoders_and_not_on_the_summary(pipe):
    plain, weighted = conditioning(pipe.family, "a fox in snow"), conditioning(pipe.family, "a (fox:1.5) in snow")
    assert plain["encoder_hidden_states"].shape == (1, 77, 64)
    moved = (weighted["encoder_hidden_states"] - plain["encoder_hidden_states"]).abs()[0, 3:6]  # f, o, x after start, a
    assert moved[:, :32].max() > 0.1
    assert moved[:, 32:].max() > 0.1
    assert torch.equal(weighted["text_embeds"], plain["text_embeds"])


def test_a_blank_prompt_is_zeros_only_where_the_model_was_trained_so(pipe, folder, tmp_path):
    assert not any(tensor.any() for tensor in conditioning(pipe.family, "").values())
    other = spoiled(folder, tmp_path / "model", "model_index.json", force_zeros_for_empty_prompt=False)
    family, _ = load_family(check(other), CPU, torch.float32)
    assert all(tensor.any() for tensor in conditioning(family, "").values())


@pytest.mark.parametrize(("upcast", "after"), [(True, torch.float32), (False, torch.float16)])
def test_a_vae_that_overflows_in_float16_is_put_into_float32(folder, tmp_path, upcast, after):
    other = spoiled(folder, tmp_path / "model", "vae/config.json", force_upcast=upcast)
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
def test_folders_that_do_not_fit_are_refused_in_one_line(folder, tmp_path, file, changes, message):
    refused(spoiled(folder, tmp_path / "model", file, **changes), message)


def test_a_plain_unet_in_its_folder_is_refused(folder, tmp_path):
    other = spoiled(folder, tmp_path / "model", "model_index.json")
    for path in (other / "unet").iterdir():
        path.unlink()
    tiny.unet().save_pretrained(other / "unet")
    refused(other, "addition_embed_type must be text_time, got 'None'")
