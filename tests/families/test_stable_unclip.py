from __future__ import annotations

import functools

import diffusers
import numpy as np
import pytest
import tiny
import torch
from parity import IMAGE_SETTINGS, SEEDS, assert_rejected, clipgen_images, copy_with_changes, max_difference
from PIL import Image

from clipgen import Pipeline, Settings, SettingsError
from clipgen.decode import read_pixels
from clipgen.families.stable_unclip import noise_seed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_unclip(tmp_path_factory.mktemp("models") / "tiny-unclip")


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def reference(folder):
    options = {"dtype": torch.float32, "local_files_only": True}
    return diffusers.StableUnCLIPImg2ImgPipeline.from_pretrained(folder, **options)


@pytest.fixture(scope="module")
def image_path(tmp_path_factory):
    """Returns the path of an image that is not square, so that it is resized and cropped."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    levels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(levels).resize((90, 60), Image.Resampling.BICUBIC).save(path)
    return path


def diffusers_images(reference, image_path, prompt="", noise_level=0, **options):
    """Returns the images of diffusers, one per seed, with clipgen's noise on the image embedding and initial noise."""
    reference.set_progress_bar_config(disable=True)
    noise_image_embeddings, images = reference.noise_image_embeddings, []
    for seed in SEEDS:
        noise = torch.randn(1, 32, generator=torch.Generator().manual_seed(noise_seed(seed)))
        reference.noise_image_embeddings = functools.partial(noise_image_embeddings, noise=noise)
        images += reference(
            Image.open(image_path),
            prompt,
            generator=torch.Generator().manual_seed(seed),
            noise_level=noise_level,
            num_inference_steps=IMAGE_SETTINGS["steps"],
            width=IMAGE_SETTINGS["width"],
            height=IMAGE_SETTINGS["height"],
            output_type="np",
            **options,
        ).images.tolist()
    reference.noise_image_embeddings = noise_image_embeddings
    return torch.tensor(np.array(images)).float().permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("weight", "noise_level", "options"),
    [
        (1, 0, {"guidance_scale": 10.0}),
        (0.75, 250, {"guidance_scale": 10.0}),
        (1, 0, {"guidance_scale": 5.0, "prompt": "a fox in snow", "negative_prompt": "rain"}),
        (1, 0, {"guidance_scale": 1.0}),
    ],
)
def test_images_equal_those_of_diffusers(pipe, reference, image_path, weight, noise_level, options):
    images = clipgen_images(pipe, **{"prompt": "", **options}, vary=f"{image_path}:{weight}")
    assert max_difference(images, diffusers_images(reference, image_path, noise_level=noise_level, **options)) <= 1e-4


def test_image_weight_and_prompt_change_the_images(pipe, image_path, tmp_path):
    other = tmp_path / "other.png"
    Image.new("RGB", (32, 32), "red").save(other)
    images = clipgen_images(pipe, "", vary=str(image_path))
    assert max_difference(images, clipgen_images(pipe, "", vary=str(other))) > 2 / 255
    assert max_difference(images, clipgen_images(pipe, "", vary=f"{image_path}:0")) > 2 / 255
    assert max_difference(images, clipgen_images(pipe, "an owl", vary=str(image_path))) > 2 / 255


def test_from_diffusers_gives_equal_images(pipe, reference, image_path):
    assert (
        max_difference(
            clipgen_images(Pipeline.from_diffusers(reference), "", vary=str(image_path)),
            clipgen_images(pipe, "", vary=str(image_path)),
        )
        <= 1e-4
    )


def test_image_embeddings_equal_those_of_the_feature_extractor_and_encoder(pipe, reference, image_path):
    with torch.no_grad():
        prepared = reference.feature_extractor(images=Image.open(image_path), return_tensors="pt").pixel_values
        expected = reference.image_encoder(prepared).image_embeds
    assert torch.allclose(pipe.family.encode_image(read_pixels(str(image_path))).embeds, expected, atol=1e-4)


def test_a_prompt_without_an_image_raises_an_error(pipe, folder):
    with pytest.raises(SettingsError, match=r"only makes variations of an image: clipgen vary IMAGE -m "):
        pipe.run(Settings("a fox", width=64, height=64))
    with pytest.raises(SettingsError, match="only makes variations of an image"):
        Pipeline.from_pretrained(str(folder), settings=[Settings("a fox")])


def test_defaults_come_from_the_model_folder(pipe):
    assert {"steps": 20, "guidance_scale": 10.0, "width": 32, "height": 32}.items() <= pipe.family.defaults.items()


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "unet/config.json",
            {"projection_class_embeddings_input_dim": 32},
            "tensors are of another shape|class_labels of",
        ),
        ("unet/config.json", {"class_embed_type": None}, "class_embed_type must be projection|unexpected"),
        ("image_normalizer/config.json", {"embedding_dim": 16}, "of another shape"),
        ("model_index.json", {"image_noising_scheduler": None}, "names no image_noising_scheduler"),
        ("model_index.json", {"image_encoder": ["transformers", "CLIPModel"]}, "clipgen loads transformers.CLIPVis"),
    ],
)
def test_inconsistent_folders_raise_one_line_errors(folder, tmp_path, file, changes, message):
    assert_rejected(copy_with_changes(folder, tmp_path / "model", file, **changes), message)
