from __future__ import annotations

import diffusers
import numpy as np
import pytest
import tiny
import torch
from parity import (
    IMAGE_SETTINGS,
    SEEDS,
    assert_rejected,
    clipgen_images,
    clipgen_results,
    copy_with_changes,
    max_difference,
)
from PIL import Image

from clipgen import Pipeline, Settings, SettingsError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_kandinsky(tmp_path_factory.mktemp("models") / "tiny-kandinsky")


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def reference(folder):
    options = {"dtype": torch.float32, "local_files_only": True}
    return diffusers.KandinskyV22CombinedPipeline.from_pretrained(folder, **options)


@pytest.fixture(scope="module")
def image_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    levels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(levels).resize((90, 60), Image.Resampling.BICUBIC).save(path)
    return path


@torch.no_grad()
def diffusers_images(reference, image_path, guidance_scale):
    """Returns the images of diffusers, one per seed, from the image embedding and the zero embedding of its prior."""
    reference.set_progress_bar_config(disable=True)
    prepared = reference.prior_image_processor(images=Image.open(image_path), return_tensors="pt").pixel_values
    image_embeds, zero_embeds = (
        reference.prior_image_encoder(prepared).image_embeds,
        reference.prior_pipe.get_zero_embed(),
    )
    images = [
        reference.decoder_pipe(
            image_embeds=image_embeds,
            negative_image_embeds=zero_embeds,
            generator=torch.Generator().manual_seed(seed),
            guidance_scale=guidance_scale,
            num_inference_steps=IMAGE_SETTINGS["steps"],
            width=IMAGE_SETTINGS["width"],
            height=IMAGE_SETTINGS["height"],
            output_type="np",
        ).images[0]
        for seed in SEEDS
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
def test_images_equal_those_of_diffusers(pipe, reference, image_path, guidance_scale):
    images = clipgen_images(pipe, "", vary=str(image_path), guidance_scale=guidance_scale)
    assert max_difference(images, diffusers_images(reference, image_path, guidance_scale)) <= 1e-3


def test_image_and_weight_change_the_output_and_an_ignored_prompt_gives_a_note(pipe, image_path, tmp_path):
    other = tmp_path / "other.png"
    Image.new("RGB", (32, 32), "red").save(other)
    images = clipgen_images(pipe, "", vary=str(image_path))
    assert max_difference(images, clipgen_images(pipe, "", vary=str(other))) > 2 / 255
    assert max_difference(images, clipgen_images(pipe, "", vary=f"{image_path}:0.5")) > 1 / 255
    with_prompt = clipgen_results(pipe, "a fox", vary=str(image_path))[0]
    assert [note.code for note in with_prompt.warnings][:1] == ["prompt-unread"]
    assert max_difference(with_prompt.pixels, images[0]) == 0


def test_from_diffusers_gives_equal_images(pipe, reference, image_path):
    of_diffusers = clipgen_images(Pipeline.from_diffusers(reference), "", vary=str(image_path))
    # The weights of the caller keep their memory format, in which convolutions round differently.
    assert max_difference(of_diffusers, clipgen_images(pipe, "", vary=str(image_path))) <= 1e-3


def test_a_prompt_without_an_image_raises_an_error(pipe):
    with pytest.raises(SettingsError, match="only makes variations of an image"):
        pipe.run(Settings("a fox", width=64, height=64))
    assert pipe.family.size_limits.multiple_of == 4
    assert pipe.family.defaults["scheduler"] == "ddim"


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet/config.json", {"encoder_hid_dim": 16}, "of another shape|image_embeds of size 16"),
        ("unet/config.json", {"out_channels": 4}, "of another shape|must give 8"),
        ("model_index.json", {"prior_image_encoder": None}, "names no prior_image_encoder"),
        ("model_index.json", {"prior_image_processor": None}, "names no prior_image_processor"),
        ("model_index.json", {"_class_name": "KandinskyV22Pipeline"}, "'KandinskyV22Pipeline' is a decoder"),
    ],
)
def test_inconsistent_folders_raise_one_line_errors(folder, tmp_path, file, changes, message):
    assert_rejected(copy_with_changes(folder, tmp_path / "model", file, **changes), message)
