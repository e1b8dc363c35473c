from __future__ import annotations

import diffusers
import pytest
import tiny
import torch
from parity import assert_rejected, clipgen_images, copy_with_changes, diffusers_images, max_difference

from clipgen import Pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_z_image(tmp_path_factory.mktemp("models") / "tiny-z_image")


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def reference(folder):
    return diffusers.ZImagePipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


@pytest.mark.parametrize(
    "options",
    [{"guidance_scale": 4.0}, {"guidance_scale": 0.5, "negative_prompt": "rain"}, {"guidance_scale": 0.0}],
)
def test_images_equal_those_of_diffusers(pipe, reference, options):
    """The guidance scale is that of diffusers' pipeline, which guides from 0 on."""
    assert max_difference(clipgen_images(pipe, **options), diffusers_images(reference, **options)) <= 1e-4


def test_a_text_encoder_without_head_is_loaded(folder, tmp_path, pipe):
    index = {"text_encoder": ["transformers", "Qwen3Model"]}
    other = copy_with_changes(folder, tmp_path / "model", "model_index.json", **index)
    assert max_difference(clipgen_images(Pipeline.from_pretrained(str(other))), clipgen_images(pipe)) == 0


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
    assert (family.cfg_scale(0.0), family.cfg_scale(4.0)) == (1.0, 5.0)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("transformer/config.json", {"siglip_feat_dim": 16}, "tensors are missing: siglip"),
        ("transformer/config.json", {"cap_feat_dim": 8}, "tensors are of another shape: cap_embedder"),
        ("transformer/config.json", {"n_layers": 3000}, "n_layers is 3000, but the weights allow"),
        ("transformer/config.json", {"axes_dims": [4, 4, 4]}, "is not a valid config of ZImageTransformer2DModel"),
        ("text_encoder/config.json", {"head_dim": 10**9}, "head_dim is 1000000000, but the weights allow"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 10**9}, "model_max_length must be 3 to 262144"),
    ],
)
def test_inconsistent_folders_raise_one_line_errors(folder, tmp_path, file, changes, message):
    assert_rejected(copy_with_changes(folder, tmp_path / "model", file, **changes), message)
