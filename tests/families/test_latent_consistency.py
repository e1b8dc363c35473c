from __future__ import annotations

import diffusers
import pytest
import tiny
import torch
from parity import (
    assert_rejected,
    clipgen_images,
    clipgen_results,
    copy_with_changes,
    diffusers_images,
    max_difference,
)

from clipgen import Pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_lcm(tmp_path_factory.mktemp("models") / "tiny-consistent")


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(str(folder))


@pytest.mark.parametrize("guidance_scale", [8.0, 1.5])
def test_images_equal_those_of_diffusers(pipe, folder, guidance_scale):
    """The embedding of the guidance scale has an odd size."""
    options = {"dtype": torch.float32, "local_files_only": True}
    reference = diffusers.LatentConsistencyModelPipeline.from_pretrained(folder, **options)
    images = diffusers_images(reference, guidance_scale=guidance_scale)
    assert max_difference(clipgen_images(pipe, guidance_scale=guidance_scale), images) <= 1e-4
    assert max_difference(clipgen_images(Pipeline.from_diffusers(reference)), clipgen_images(pipe)) <= 1e-4


def test_the_guidance_scale_is_an_input_and_the_negative_prompt_is_ignored(pipe):
    images = clipgen_images(pipe)
    assert max_difference(images, clipgen_images(pipe, guidance_scale=1.0)) > 2 / 255
    notes = clipgen_results(pipe, negative_prompt="rain")[0].warnings
    assert "negative-prompt-unread" in {note.code for note in notes}
    defaults = pipe.defaults
    assert (defaults["steps"], defaults["guidance_scale"], defaults["scheduler"]) == (4, 8.0, "lcm")


def test_a_unet_without_guidance_input_is_refused(folder, tmp_path):
    plain = tiny.save_epsilon(tmp_path / "plain")
    as_lcm = copy_with_changes(
        plain, tmp_path / "model", "model_index.json", _class_name="LatentConsistencyModelPipeline"
    )
    assert_rejected(as_lcm, "time_cond_proj_dim must be set")
    as_sd = copy_with_changes(folder, tmp_path / "sd", "model_index.json", _class_name="StableDiffusionPipeline")
    assert_rejected(as_sd, "time_cond_proj_dim is set; clipgen's stable_diffusion family has no such input")
