"""What every family of a transformer with its own text encoder must do; the parity of each has a file of its own."""

from __future__ import annotations

import diffusers
import pytest
import tiny
import torch
from parity import clipgen_images, max_difference

from clipgen import Pipeline

MODELS = {
    "ChromaPipeline": tiny.save_chroma,
    "Flux2KleinPipeline": lambda folder: tiny.save_flux_2_klein(folder, distilled=False),
    "QwenImagePipeline": tiny.save_qwen_image,
    "ZImagePipeline": tiny.save_z_image,
}


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    """The name of a pipeline class of diffusers, a model folder, and its pipeline."""
    folder = MODELS[request.param](tmp_path_factory.mktemp("models") / request.param)
    return request.param, folder, Pipeline.from_pretrained(str(folder))


def test_the_whole_prompt_and_the_negative_prompt_change_the_images(model):
    _, _, pipe = model
    images = clipgen_images(pipe)
    assert max_difference(images, clipgen_images(pipe, "a fox in sand")) > 2e-3
    assert max_difference(images, clipgen_images(pipe, negative_prompt="rain")) > 1e-3
    assert max_difference(images, clipgen_images(pipe, "a (fox:1.5) in snow")) > 0


def test_from_diffusers_gives_equal_images(model):
    name, folder, pipe = model
    reference = getattr(diffusers, name).from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    assert max_difference(clipgen_images(Pipeline.from_diffusers(reference)), clipgen_images(pipe)) <= 1e-4


def test_bfloat16_images_are_close_to_float32(model):
    _, folder, pipe = model
    half = clipgen_images(Pipeline.from_pretrained(str(folder), dtype="bfloat16"))
    assert (half - clipgen_images(pipe)).abs().mean() <= 4 / 255
