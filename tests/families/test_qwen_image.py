from __future__ import annotations

import diffusers
import pytest
import tiny
import torch
from parity import assert_rejected, clipgen_images, copy_with_changes, diffusers_images, max_difference

from clipgen import Pipeline
from clipgen.families import join_rows
from clipgen.families.qwen_image import DROPPED
from clipgen.text import lost_words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_qwen_image(tmp_path_factory.mktemp("models") / "tiny-qwen_image")


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def reference(folder):
    return diffusers.QwenImagePipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


@pytest.mark.parametrize(("guidance_scale", "negative_prompt"), [(4.0, ""), (2.0, "rain and clouds"), (1.0, "")])
def test_images_equal_those_of_diffusers(pipe, reference, guidance_scale, negative_prompt):
    """The prompts differ in length, so that the shorter one is padded; diffusers predicts them one by one."""
    images = diffusers_images(reference, negative_prompt=negative_prompt, true_cfg_scale=guidance_scale)
    options = {"guidance_scale": guidance_scale, "negative_prompt": negative_prompt}
    assert max_difference(clipgen_images(pipe, **options), images) <= 1e-4


def test_prompts_of_different_length_are_padded_at_the_end():
    joined = join_rows([torch.ones(1, 2, 3), torch.ones(1, 4, 3)])
    assert joined.shape == (2, 4, 3)
    assert joined.sum(dim=2).tolist() == [[3, 3, 0, 0], [3, 3, 3, 3]]


def test_the_template_does_not_count_as_words_of_the_prompt(pipe):
    text_encoder = pipe.family.text_encoders[0]
    template = len(text_encoder.tokenizer(text_encoder.prefix).input_ids)
    assert lost_words("a" * (1024 + DROPPED - template), text_encoder) == ""
    assert lost_words("a " * 600, text_encoder) != ""


def test_defaults_come_from_the_family(pipe):
    assert pipe.family.defaults == {
        "steps": 50,
        "width": 1024,
        "height": 1024,
        "scheduler": "flow_euler",
        "guidance_scale": 4.0,
        "eta": 0.0,
    }
    family = pipe.family
    assert family.latent_shape(96, 64) == (4, 8, 12)
    assert family.image_seq_len(96, 64) == 4 * 6
    assert family.sigmas(4) == [1.0, 0.75, 0.5, 0.25]


def test_the_vae_round_trip_keeps_the_shape(pipe):
    assert pipe.family.reconstruct(torch.rand(2, 3, 64, 96)).shape == (2, 3, 64, 96)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("transformer/config.json", {"axes_dims_rope": [4, 4, 4]}, "axes_dims_rope must be 3 numbers that sum to"),
        (
            "transformer/config.json",
            {"zero_cond_t": True},
            "zero_cond_t is set; clipgen's qwen_image family",
        ),
        ("transformer/config.json", {"joint_attention_dim": 8}, "tensors are of another shape"),
        (
            "transformer/config.json",
            {"joint_attention_dim": 10**10},
            "joint_attention_dim is 10000000000",
        ),
        ("vae/config.json", {"latents_mean": [0.0]}, "latents_mean and latents_std must be 4 numbers"),
        ("vae/config.json", {"num_res_blocks": 3000}, "num_res_blocks is 3000, but the weights allow"),
    ],
)
def test_inconsistent_folders_raise_one_line_errors(folder, tmp_path, file, changes, message):
    assert_rejected(copy_with_changes(folder, tmp_path / "model", file, **changes), message)
