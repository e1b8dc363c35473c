from __future__ import annotations

import json
import os

import diffusers
import pytest
import tiny
import tiny_lora
import torch
from parity import clipgen_images, clipgen_results, diffusers_images, max_difference
from safetensors.torch import load_file, save_file

from clipgen import ModelError, Pipeline, PromptError, Settings, SettingsError
from clipgen.errors import ModelNotFound

FORMS = ("kohya", "diffusers", "peft")


class Model:
    """A tiny model in clipgen and in diffusers, which does not share its networks."""

    def __init__(self, folder, pipeline_class):
        self.folder = folder
        self.pipe = Pipeline.from_pretrained(str(folder))
        self.reference = pipeline_class.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self.plain = clipgen_images(self.pipe)

    def theirs(self, *files, **options):
        """Returns the images of diffusers with LoRA files, (path, weight) each."""
        for k, (path, _) in enumerate(files):
            self.reference.load_lora_weights(path.parent, weight_name=path.name, adapter_name=f"lora{k}")
        self.reference.set_adapters([f"lora{k}" for k in range(len(files))], [weight for _, weight in files])
        images = diffusers_images(self.reference, **options)
        self.reference.unload_lora_weights()
        return images


@pytest.fixture(scope="module")
def models(tiny_epsilon, tmp_path_factory):
    xl = tiny.save_xl(tmp_path_factory.mktemp("models") / "tiny-xl")
    return {
        "sd": Model(tiny_epsilon, diffusers.StableDiffusionPipeline),
        "xl": Model(xl, diffusers.StableDiffusionXLPipeline),
    }


@pytest.fixture(params=["sd", "xl"])
def model(models, request):
    return models[request.param]


@pytest.mark.parametrize("form", FORMS)
def test_images_equal_those_of_diffusers_and_without_the_lora_are_as_before(model, form, tmp_path):
    file = tiny_lora.save(tmp_path / f"{form}.safetensors", model.reference, form)
    ours = clipgen_images(model.pipe, lora=[f"{file}:0.8"], guidance_scale=5.0)
    assert max_difference(ours, model.theirs((file, 0.8), guidance_scale=5.0)) <= 1e-4
    assert max_difference(ours, model.plain) > 4 / 255
    assert torch.equal(clipgen_images(model.pipe), model.plain)
