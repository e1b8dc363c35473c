from __future__ import annotations

import diffusers
import pytest
import tiny
import tiny_lora
import torch
from parity import assert_rejected, clipgen_images, copy_with_changes, diffusers_images, encode_prompt, max_difference

from clipgen import Pipeline, SettingsError

TOKENS = 32  # of the tiny T5


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
def reference(folder):
    return diffusers.StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


@pytest.mark.parametrize(
    "options",
    [{"guidance_scale": 7.0}, {"guidance_scale": 7.0, "negative_prompt": "rain"}, {"guidance_scale": 1.0}],
)
def test_images_equal_those_of_diffusers(pipe, reference, options):
    assert (
        max_difference(
            clipgen_images(pipe, **options), diffusers_images(reference, **options, max_sequence_length=TOKENS)
        )
        <= 1e-4
    )


def test_images_without_t5_equal_those_of_diffusers(without_t5):
    options = {"dtype": torch.float32, "local_files_only": True, "text_encoder_3": None, "tokenizer_3": None}
    reference = diffusers.StableDiffusion3Pipeline.from_pretrained(without_t5, **options)
    pipe = Pipeline.from_pretrained(str(without_t5))
    assert len(pipe.family.text_encoders) == 2
    images = diffusers_images(reference, guidance_scale=7.0)
    assert max_difference(clipgen_images(pipe, guidance_scale=7.0), images) <= 1e-4
    assert max_difference(clipgen_images(Pipeline.from_diffusers(reference), guidance_scale=7.0), images) <= 1e-4


def test_prompt_and_negative_prompt_change_the_images(pipe):
    images = clipgen_images(pipe)
    assert max_difference(images, clipgen_images(pipe, "an owl")) > 2 / 255
    assert max_difference(images, clipgen_images(pipe, negative_prompt="rain")) > 2 / 255


def test_from_diffusers_gives_equal_images(pipe, reference):
    """The maximum length of T5 comes from the tokenizer, as for a folder."""
    assert max_difference(clipgen_images(Pipeline.from_diffusers(reference)), clipgen_images(pipe)) <= 1e-4


def test_bfloat16_images_are_close_to_float32(pipe, folder):
    half = clipgen_images(Pipeline.from_pretrained(str(folder), dtype="bfloat16"))
    assert (half - clipgen_images(pipe)).abs().mean() <= 4 / 255


def test_defaults_come_from_the_model_folder(pipe):
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


def test_a_size_beyond_the_position_embeddings_raises_an_error(pipe):
    with pytest.raises(SettingsError, match=r"width must be at most 192 for model '.*', got '200'") as error:
        clipgen_images(pipe, width=200)
    assert error.value.field == "width"


def test_prompt_weights_change_the_states_of_all_encoders_but_not_the_pooled_embedding(pipe):
    plain, weighted = (
        pipe.family.encode(encode_prompt(prompt, pipe.family.text_encoders).embedded, is_empty=False)
        for prompt in ("a fox in snow", "a (fox:1.5) in snow")
    )
    assert plain["encoder_hidden_states"].shape == (1, 77 + TOKENS, 64)
    change = (weighted["encoder_hidden_states"] - plain["encoder_hidden_states"]).abs()[0]
    assert change[3, :32].max() > 0.1  # start, a, f
    assert change[3, 32:].max() > 0.1
    assert change[77 + 2 : 77 + 6].max() > 0.1  # T5: space, a, then the weighted tokens: space, f, o, x
    assert change[77:][[0, 1, 6, 7, 20]].max() < 0.01  # other tokens change only through the mean
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
def test_inconsistent_folders_raise_one_line_errors(folder, tmp_path, file, changes, message):
    assert_rejected(copy_with_changes(folder, tmp_path / "model", file, **changes), message)


def test_t5_is_not_loaded_if_the_index_does_not_name_it(folder, tmp_path):
    other = copy_with_changes(folder, tmp_path / "model", "model_index.json", text_encoder_3=[None, None])
    assert len(Pipeline.from_pretrained(str(other)).family.text_encoders) == 2


def test_a_lora_changes_the_images_as_in_diffusers(pipe, reference, tmp_path):
    file, plain = tiny_lora.save(tmp_path / "one.safetensors", reference, "peft"), clipgen_images(pipe)
    reference.load_lora_weights(tmp_path, weight_name=file.name, adapter_name="one")
    reference.set_adapters(["one"], [0.3])
    theirs = diffusers_images(reference, guidance_scale=7.0, max_sequence_length=TOKENS)
    reference.unload_lora_weights()
    ours = clipgen_images(pipe, lora=[f"{file}:0.3"], guidance_scale=7.0)
    assert max_difference(ours, theirs) <= 1e-4
    assert max_difference(ours, plain) > 2 / 255
    assert torch.equal(clipgen_images(pipe), plain)
