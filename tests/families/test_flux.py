from __future__ import annotations

import diffusers
import pytest
import tiny
import tiny_lora
import torch
from diffusers import FluxPipeline
from parity import (
    assert_rejected,
    clipgen_images,
    clipgen_results,
    copy_with_changes,
    diffusers_images,
    encode_prompt,
    max_difference,
)

from clipgen import Pipeline, SettingsError
from clipgen.families.flux import latent_image_ids, pack_latents, unpack_latents

TOKENS = 32  # of the tiny T5
KINDS = ("dev", "schnell")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    return {kind: tiny.save_flux(models / f"tiny-{kind}", guidance=kind == "dev") for kind in KINDS}


@pytest.fixture(scope="module")
def pipes(folders):
    return {kind: Pipeline.from_pretrained(str(folder)) for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def references(folders):
    options = {"dtype": torch.float32, "local_files_only": True}
    return {kind: FluxPipeline.from_pretrained(folder, **options) for kind, folder in folders.items()}


@pytest.mark.parametrize(("kind", "guidance_scale"), [("dev", 3.5), ("dev", 1.0), ("schnell", 0.0)])
def test_images_equal_those_of_diffusers(pipes, references, kind, guidance_scale):
    """The flow shift of dev depends on the number of image tokens; the image is not square."""
    images = diffusers_images(references[kind], guidance_scale=guidance_scale, max_sequence_length=TOKENS)
    assert max_difference(clipgen_images(pipes[kind], guidance_scale=guidance_scale), images) <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_from_diffusers_gives_equal_images(pipes, references, kind):
    assert (
        max_difference(clipgen_images(Pipeline.from_diffusers(references[kind])), clipgen_images(pipes[kind])) <= 1e-4
    )


def test_guidance_scale_is_an_input_of_dev_and_ignored_by_schnell(pipes):
    assert (
        max_difference(
            clipgen_images(pipes["dev"], guidance_scale=3.5), clipgen_images(pipes["dev"], guidance_scale=7.0)
        )
        > 2 / 255
    )
    assert (
        max_difference(
            clipgen_images(pipes["schnell"], guidance_scale=0.0), clipgen_images(pipes["schnell"], guidance_scale=7.0)
        )
        == 0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_one_forward_pass_per_step_and_the_negative_prompt_is_ignored(pipes, kind):
    rows = []
    handle = pipes[kind].family.transformer.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    generated = clipgen_results(pipes[kind], negative_prompt="rain", guidance_scale=3.5)
    handle.remove()
    assert rows == [2] * 4
    assert [note.code for note in generated[0].warnings] == ["negative-prompt-unread", "size", "no-clip"]
    assert max_difference(generated[0].pixels, clipgen_results(pipes[kind], guidance_scale=3.5)[0].pixels) == 0
    assert (
        max_difference(generated[0].pixels, clipgen_results(pipes[kind], "an owl", guidance_scale=3.5)[0].pixels)
        > 2 / 255
    )


def test_bfloat16_images_are_close_to_float32(pipes, folders):
    half = clipgen_images(Pipeline.from_pretrained(str(folders["dev"]), dtype="bfloat16"))
    assert (half - clipgen_images(pipes["dev"])).abs().mean() <= 4 / 255


def test_packing_equals_diffusers_and_is_invertible():
    latents = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    packed = pack_latents(latents)
    assert torch.equal(packed, FluxPipeline._pack_latents(latents, 2, 3, 4, 6))
    assert torch.equal(unpack_latents(packed, 4, 6), latents)
    assert torch.equal(latent_image_ids(latents), FluxPipeline._prepare_latent_image_ids(2, 2, 3, "cpu", torch.float32))


@pytest.mark.parametrize(("kind", "steps", "guidance_scale"), [("dev", 28, 3.5), ("schnell", 4, 0.0)])
def test_defaults_come_from_the_model_folder(pipes, kind, steps, guidance_scale):
    assert pipes[kind].family.defaults == {
        "steps": steps,
        "width": 1024,
        "height": 1024,
        "scheduler": "flow_euler",
        "guidance_scale": guidance_scale,
        "eta": 0.0,
    }
    family = pipes[kind].family
    assert family.latent_shape(96, 64) == (4, 8, 12)
    assert family.image_seq_len(96, 64) == 4 * 6
    assert family.distilled
    assert family.sigmas(4) == [1.0, 0.75, 0.5, 0.25]


def test_height_must_be_a_multiple_of_16(pipes):
    with pytest.raises(SettingsError, match=r"height must be a multiple of 16 for model '.*', got '72'") as error:
        clipgen_images(pipes["dev"], height=72)
    assert error.value.field == "height"


def test_prompt_weights_change_the_t5_states_but_not_the_pooled_embedding(pipes):
    plain, weighted = (encode_prompt(prompt, pipes["dev"].family.text_encoders) for prompt in ("a fox", "a (fox:1.5)"))
    conditionings = [pipes["dev"].family.encode(encoded.embedded, is_empty=False) for encoded in (plain, weighted)]
    assert max_difference(conditionings[0]["encoder_hidden_states"], conditionings[1]["encoder_hidden_states"]) > 0.1
    assert torch.equal(conditionings[0]["pooled_projections"], conditionings[1]["pooled_projections"])


def test_truncation_is_noted_only_if_no_text_encoder_reads_the_text(pipes):
    """CLIP reads 75 tokens and the tiny T5 31; a note appears only if both truncate the prompt."""
    assert [note.code for note in clipgen_results(pipes["schnell"], "a" * 70)[0].warnings] == ["size", "no-clip"]
    assert "75 tokens" in clipgen_results(pipes["schnell"], "a" * 80)[0].warnings[0].message


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("transformer/config.json", {"axes_dims_rope": [4, 4, 4]}, "axes_dims_rope must be 3 numbers that sum to"),
        ("transformer/config.json", {"axes_dims_rope": [8, 8]}, "axes_dims_rope must be 3 numbers"),
        ("transformer/config.json", {"in_channels": 18}, "tensors are of another shape"),
        ("transformer/config.json", {"guidance_embeds": False}, "tensors are unexpected: time_text_embed.guidance"),
        ("transformer/config.json", {"num_single_layers": 3000}, "num_single_layers is 3000, but the weights allow"),
        (
            "model_index.json",
            {"scheduler": ["diffusers", "EulerDiscreteScheduler"]},
            "is diffusers.EulerDiscreteSchedu",
        ),
        ("model_index.json", {"tokenizer_2": ["transformers", "CLIPTokenizer"]}, "loads transformers.T5TokenizerFast"),
        ("tokenizer_2/tokenizer_config.json", {"model_max_length": None}, "model_max_length must be 3 to 262144"),
    ],
)
def test_inconsistent_folders_raise_one_line_errors(folders, tmp_path, file, changes, message):
    assert_rejected(copy_with_changes(folders["dev"], tmp_path / "model", file, **changes), message)


def test_a_vae_with_other_latent_channels_raises_an_error(folders, tmp_path):
    other = copy_with_changes(folders["dev"], tmp_path / "model", "model_index.json")
    for path in (other / "vae").iterdir():
        path.unlink()
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), latent_channels=3, norm_num_groups=1)
    vae.save_pretrained(other / "vae")
    assert_rejected(other, "transformer takes 4 channels and the vae gives 3")


def test_a_lora_changes_the_images_as_in_diffusers(pipes, references, tmp_path):
    pipe, reference = pipes["schnell"], references["schnell"]
    file, plain = tiny_lora.save(tmp_path / "one.safetensors", reference, "peft"), clipgen_images(pipe)
    reference.load_lora_weights(tmp_path, weight_name=file.name, adapter_name="one")
    reference.set_adapters(["one"], [0.3])
    theirs = diffusers_images(reference, guidance_scale=0.0, max_sequence_length=TOKENS)
    reference.unload_lora_weights()
    ours = clipgen_images(pipe, lora=[f"{file}:0.3"])
    assert max_difference(ours, theirs) <= 1e-4
    assert max_difference(ours, plain) > 2 / 255
    assert torch.equal(clipgen_images(pipe), plain)
