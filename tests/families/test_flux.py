from __future__ import annotations

import diffusers
import pytest
import tiny
import torch
from diffusers import FluxPipeline
from parity import apart, ours, refused, results, spoiled, theirs

from clipgen import Pipeline, SettingsError
from clipgen.families.flux import latent_image_ids, pack_latents, unpack_latents
from clipgen.text import encode_prompt

TOKENS = 32  # those of the tiny T5
KINDS = ("dev", "schnell")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    return {kind: tiny.save_flux(models / f"tiny-{kind}", guidance=kind == "dev") for kind in KINDS}


@pytest.fixture(scope="module")
def pipes(folders):
    return {kind: Pipeline.from_pretrained(str(folder)) for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def peers(folders):
    options = {"dtype": torch.float32, "local_files_only": True}
    return {kind: FluxPipeline.from_pretrained(folder, **options) for kind, folder in folders.items()}


@pytest.mark.parametrize(("kind", "guidance_scale"), [("dev", 3.5), ("dev", 1.0), ("schnell", 0.0)])
def test_the_picture_is_diffusers_own(pipes, peers, kind, guidance_scale):
    """dev shifts by the number of latent_image_ids, which here are not those of a square."""
    picture = theirs(peers[kind], guidance_scale=guidance_scale, max_sequence_length=TOKENS)
    assert apart(ours(pipes[kind], guidance_scale=guidance_scale), picture) <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_pipeline_is_taken_over(pipes, peers, kind):
    assert apart(ours(Pipeline.from_diffusers(peers[kind])), ours(pipes[kind])) <= 1e-4


def test_the_scale_is_an_input_of_dev_and_nothing_to_schnell(pipes):
    assert apart(ours(pipes["dev"], guidance_scale=3.5), ours(pipes["dev"], guidance_scale=7.0)) > 2 / 255
    assert apart(ours(pipes["schnell"], guidance_scale=0.0), ours(pipes["schnell"], guidance_scale=7.0)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_one_pass_a_step_and_no_negative_prompt(pipes, kind):
    rows = []
    handle = pipes[kind].family.transformer.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    drawn = results(pipes[kind], negative_prompt="rain", guidance_scale=3.5)
    handle.remove()
    assert rows == [2] * 4
    assert [note.code for note in drawn[0].warnings] == ["negative-prompt-unread", "no-clip"]
    assert apart(drawn[0].pixels, results(pipes[kind], guidance_scale=3.5)[0].pixels) == 0
    assert apart(drawn[0].pixels, results(pipes[kind], "an owl", guidance_scale=3.5)[0].pixels) > 2 / 255


def test_half_precision_draws_nearly_the_same(pipes, folders):
    half = ours(Pipeline.from_pretrained(str(folders["dev"]), dtype="bfloat16"))
    assert (half - ours(pipes["dev"])).abs().mean() <= 4 / 255


def test_packing_is_diffusers_own_and_can_be_undone():
    latents = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    packed = pack_latents(latents)
    assert torch.equal(packed, FluxPipeline._pack_latents(latents, 2, 3, 4, 6))
    assert torch.equal(unpack_latents(packed, 4, 6), latents)
    assert torch.equal(latent_image_ids(latents), FluxPipeline._prepare_latent_image_ids(2, 2, 3, "cpu", torch.float32))


@pytest.mark.parametrize(("kind", "steps", "guidance_scale"), [("dev", 28, 3.5), ("schnell", 4, 0.0)])
def test_the_defaults_are_the_models_own(pipes, kind, steps, guidance_scale):
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


def test_sides_are_multiples_of_the_patch(pipes):
    with pytest.raises(SettingsError, match=r"height must be a multiple of 16 for model '.*', got '72'") as error:
        ours(pipes["dev"], height=72)
    assert error.value.field == "height"


def test_weights_act_on_t5s_tokens_and_not_on_the_summary(pipes):
    plain, weighted = (encode_prompt(prompt, pipes["dev"].family.text_encoders) for prompt in ("a fox", "a (fox:1.5)"))
    conditionings = [pipes["dev"].family.encode(encoded.embedded, is_empty=False) for encoded in (plain, weighted)]
    assert apart(conditionings[0]["encoder_hidden_states"], conditionings[1]["encoder_hidden_states"]) > 0.1
    assert torch.equal(conditionings[0]["pooled_projections"], conditionings[1]["pooled_projections"])


def test_the_longest_reader_decides_what_is_cut(pipes):
    """CLIP's 75 letters are more than the tiny T5's 31 tokens; only what neither reads gives a note."""
    assert [note.code for note in results(pipes["schnell"], "a" * 70)[0].warnings] == ["no-clip"]
    assert "75 tokens" in results(pipes["schnell"], "a" * 80)[0].warnings[0].message


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
        ("tokenizer_2/tokenizer_config.json", {"model_max_length": None}, "model_max_length must be 3 to 4096"),
    ],
)
def test_folders_that_do_not_fit_are_refused_in_one_line(folders, tmp_path, file, changes, message):
    refused(spoiled(folders["dev"], tmp_path / "model", file, **changes), message)


def test_a_transformer_of_another_vae_is_refused(folders, tmp_path):
    other = spoiled(folders["dev"], tmp_path / "model", "model_index.json")
    for path in (other / "vae").iterdir():
        path.unlink()
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), latent_channels=3, norm_num_groups=1)
    vae.save_pretrained(other / "vae")
    refused(other, "transformer takes 4 channels and the vae gives 3")
