from __future__ import annotations

import diffusers
import pytest
import tiny
import torch
from parity import apart, ours, refused, spoiled, theirs

from clipgen import Pipeline, SettingsError
from clipgen.text import encode_prompt

TOKENS = 32  # those of the tiny T5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_sd3(tmp_path_factory.mktemp("models") / "tiny-sd3")


@pytest.fixture(scope="module")
def without_t5(tmp_path_factory):
    return tiny.save_sd3(tmp_path_factory.mktemp("models") / "tiny-sd3", with_t5=False)


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def peer(folder):
    return diffusers.StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


@pytest.mark.parametrize(
    "options",
    [{"guidance_scale": 7.0}, {"guidance_scale": 7.0, "negative_prompt": "rain"}, {"guidance_scale": 1.0}],
)
def test_the_picture_is_diffusers_own(pipe, peer, options):
    assert apart(ours(pipe, **options), theirs(peer, **options, max_sequence_length=TOKENS)) <= 1e-4


def test_it_draws_without_t5_as_diffusers_does(without_t5):
    options = {"dtype": torch.float32, "local_files_only": True, "text_encoder_3": None, "tokenizer_3": None}
    peer = diffusers.StableDiffusion3Pipeline.from_pretrained(without_t5, **options)
    pipe = Pipeline.from_pretrained(str(without_t5))
    assert len(pipe.family.text_encoders) == 2
    picture = theirs(peer, guidance_scale=7.0)
    assert apart(ours(pipe, guidance_scale=7.0), picture) <= 1e-4
    assert apart(ours(Pipeline.from_diffusers(peer), guidance_scale=7.0), picture) <= 1e-4


def test_everything_told_is_seen(pipe):
    picture = ours(pipe)
    assert apart(picture, ours(pipe, "an owl")) > 2 / 255
    assert apart(picture, ours(pipe, negative_prompt="rain")) > 2 / 255


def test_a_loaded_pipeline_is_taken_over(pipe, peer):
    """It looks at the tokenizer for T5's length, as the folder's own pipeline does."""
    assert apart(ours(Pipeline.from_diffusers(peer)), ours(pipe)) <= 1e-4


def test_half_precision_draws_nearly_the_same(pipe, folder):
    half = ours(Pipeline.from_pretrained(str(folder), dtype="bfloat16"))
    assert (half - ours(pipe)).abs().mean() <= 4 / 255


def test_the_defaults_are_the_models_own(pipe):
    assert pipe.family.defaults == {
        "steps": 28,
        "width": 128,
        "height": 128,
        "scheduler": "flow_euler",
        "guidance_scale": 7.0,
        "eta": 0.0,
    }
    family = pipe.family
    assert family.latent_shape(96, 64) == (4, 16, 24)
    assert family.image_seq_len(96, 64) == 8 * 12
    assert (family.prediction_type, family.distilled, family.sigmas(4)) == ("flow", False, None)


def test_a_picture_larger_than_its_table_of_places_is_refused(pipe):
    with pytest.raises(SettingsError, match=r"width must be at most 192 for model '.*', got '200'") as error:
        ours(pipe, width=200)
    assert error.value.field == "width"


def test_weights_act_on_the_tokens_of_all_encoders_and_not_on_the_summary(pipe):
    plain, weighted = (
        pipe.family.encode(encode_prompt(prompt, pipe.family.text_encoders).embedded, is_empty=False)
        for prompt in ("a fox in snow", "a (fox:1.5) in snow")
    )
    assert plain["encoder_hidden_states"].shape == (1, 77 + TOKENS, 64)
    moved = (weighted["encoder_hidden_states"] - plain["encoder_hidden_states"]).abs()[0]
    assert moved[3, :32].max() > 0.1  # start, a, f
    assert moved[3, 32:].max() > 0.1
    assert moved[77 + 2 : 77 + 6].max() > 0.1  # T5: space, a, and then what the weight is on: space, f, o, x
    assert moved[77:][[0, 1, 6, 7, 20]].max() < 0.01  # these move with the mean alone
    assert torch.equal(weighted["pooled_projections"], plain["pooled_projections"])


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("transformer/config.json", {"caption_projection_dim": 64}, "tensors are of another shape: context_embedder"),
        ("transformer/config.json", {"pos_embed_max_size": None}, "tensors are of another shape: pos_embed|pos_embed"),
        ("transformer/config.json", {"pos_embed_max_size": 0}, "asks for pos_embed.pos_embed, a buffer that no file"),
        ("transformer/config.json", {"num_layers": 3000}, "num_layers is 3000, but the weights allow"),
        ("transformer/config.json", {"in_channels": 5}, "tensors are of another shape"),
        ("model_index.json", {"tokenizer_3": [None, None]}, "names no tokenizer_3"),
        (
            "model_index.json",
            {"text_encoder_3": ["transformers", "CLIPTextModel"]},
            "loads transformers.T5EncoderModel",
        ),
        ("model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "'scheduler' is diffusers.DDIMScheduler"),
        ("model_index.json", {"scheduler": ["diffusers", "UniPCMultistepScheduler"]}, "is made for epsilon; models of"),
        ("text_encoder_3/config.json", {"num_layers": 3000}, "num_layers is 3000"),
        ("text_encoder_3/config.json", {"d_model": "x"}, "is not a valid config of T5EncoderModel"),
    ],
)
def test_folders_that_do_not_fit_are_refused_in_one_line(folder, tmp_path, file, changes, message):
    refused(spoiled(folder, tmp_path / "model", file, **changes), message)


def test_t5_that_nobody_names_is_not_loaded(folder, tmp_path):
    other = spoiled(folder, tmp_path / "model", "model_index.json", text_encoder_3=[None, None])
    assert len(Pipeline.from_pretrained(str(other)).family.text_encoders) == 2
