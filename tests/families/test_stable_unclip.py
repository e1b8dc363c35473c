from __future__ import annotations

import functools

import diffusers
import numpy as np
import pytest
import tiny
import torch
from parity import DRAWN, SEEDS, apart, ours, refused, spoiled
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
def peer(folder):
    options = {"dtype": torch.float32, "local_files_only": True}
    return diffusers.StableUnCLIPImg2ImgPipeline.from_pretrained(folder, **options)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Not square, so that it is resized and cropped."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    levels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(levels).resize((90, 60), Image.Resampling.BICUBIC).save(path)
    return path


def theirs(peer, picture, prompt="", noise_level=0, **options):
    """Picture by picture, each with our noise on the picture's vector and our start noise."""
    peer.set_progress_bar_config(disable=True)
    plain, drawn = peer.noise_image_embeddings, []
    for seed in SEEDS:
        noise = torch.randn(1, 32, generator=torch.Generator().manual_seed(noise_seed(seed)))
        peer.noise_image_embeddings = functools.partial(plain, noise=noise)
        drawn += peer(
            Image.open(picture),
            prompt,
            generator=torch.Generator().manual_seed(seed),
            noise_level=noise_level,
            num_inference_steps=DRAWN["steps"],
            width=DRAWN["width"],
            height=DRAWN["height"],
            output_type="np",
            **options,
        ).images.tolist()
    peer.noise_image_embeddings = plain
    return torch.tensor(np.array(drawn)).float().permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("weight", "noise_level", "options"),
    [
        (1, 0, {"guidance_scale": 10.0}),
        (0.75, 250, {"guidance_scale": 10.0}),
        (1, 0, {"guidance_scale": 5.0, "prompt": "a fox in snow", "negative_prompt": "rain"}),
        (1, 0, {"guidance_scale": 1.0}),
    ],
)
def test_the_picture_is_diffusers_own(pipe, peer, picture, weight, noise_level, options):
    drawn = ours(pipe, **{"prompt": "", **options}, vary=f"{picture}:{weight}")
    assert apart(drawn, theirs(peer, picture, noise_level=noise_level, **options)) <= 1e-4


def test_everything_told_is_seen(pipe, picture, tmp_path):
    other = tmp_path / "other.png"
    Image.new("RGB", (32, 32), "red").save(other)
    drawn = ours(pipe, "", vary=str(picture))
    assert apart(drawn, ours(pipe, "", vary=str(other))) > 2 / 255
    assert apart(drawn, ours(pipe, "", vary=f"{picture}:0")) > 2 / 255
    assert apart(drawn, ours(pipe, "an owl", vary=str(picture))) > 2 / 255


def test_a_loaded_pipeline_is_taken_over(pipe, peer, picture):
    assert apart(ours(Pipeline.from_diffusers(peer), "", vary=str(picture)), ours(pipe, "", vary=str(picture))) <= 1e-4


def test_it_sees_what_its_own_feature_extractor_prepares(pipe, peer, picture):
    with torch.no_grad():
        prepared = peer.feature_extractor(images=Image.open(picture), return_tensors="pt").pixel_values
        wanted = peer.image_encoder(prepared).image_embeds
    assert torch.allclose(pipe.family.encode_image(read_pixels(str(picture))).embeds, wanted, atol=1e-4)


def test_without_a_picture_it_draws_nothing(pipe, folder):
    with pytest.raises(SettingsError, match=r"only makes variations of an image: clipgen vary IMAGE -m "):
        pipe.run(Settings("a fox", width=64, height=64))
    with pytest.raises(SettingsError, match="only makes variations of an image"):
        Pipeline.from_pretrained(str(folder), settings=[Settings("a fox")])


def test_the_defaults_are_the_models_own(pipe):
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
def test_folders_that_do_not_fit_are_refused_in_one_line(folder, tmp_path, file, changes, message):
    refused(spoiled(folder, tmp_path / "model", file, **changes), message)
