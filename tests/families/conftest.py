"""Two tiny models, like SD 1 and SDXL, each in clipgen and in diffusers."""

from __future__ import annotations

import warnings

import diffusers
import pytest
import tiny
import torch
from parity import SEEDS, clipgen_images, diffusers_images

from clipgen import Pipeline


class Model:
    """A tiny model in clipgen and in diffusers, which does not share its networks."""

    def __init__(self, folder, pipeline_class):
        self.folder = folder
        self.pipe = Pipeline.from_pretrained(str(folder))
        self.reference = pipeline_class.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self.plain = clipgen_images(self.pipe)

    def theirs(self, *files, **options):
        """Returns the images of diffusers with LoRA files, (path, weight) each."""
        names = [f"lora{k}" for k in range(len(files))]
        try:
            for name, (path, _) in zip(names, files, strict=True):
                with warnings.catch_warnings(action="ignore", category=UserWarning):
                    self.reference.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
            self.reference.set_adapters(names, [weight for _, weight in files])
            return diffusers_images(self.reference, **options)
        finally:
            self.reference.unload_lora_weights()

    def theirs_of_embeds(self, positive, negative):
        """Returns the images of diffusers for lists of prompts, the windows of the prompt and the negative prompt."""
        options = {}
        for prefix, prompts in (("", positive), ("negative_", negative)):
            parts = [
                self.reference.encode_prompt(
                    prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
                )
                for prompt in prompts
            ]
            if len(parts[0]) == 4:  # SDXL
                options[f"{prefix}pooled_prompt_embeds"] = parts[0][2].repeat(len(SEEDS), 1)
            embeds = torch.cat([part[0] for part in parts], dim=1)
            options[f"{prefix}prompt_embeds"] = embeds.repeat(len(SEEDS), 1, 1)
        return diffusers_images(self.reference, None, guidance_scale=5.0, **options)


@pytest.fixture(scope="package")
def models(tiny_epsilon, tmp_path_factory):
    xl = tiny.save_xl(tmp_path_factory.mktemp("models") / "tiny-xl")
    return {
        "sd": Model(tiny_epsilon, diffusers.StableDiffusionPipeline),
        "xl": Model(xl, diffusers.StableDiffusionXLPipeline),
    }


@pytest.fixture(params=["sd", "xl"])
def model(models, request):
    return models[request.param]
