from __future__ import annotations

import diffusers
import numpy as np
import pytest
import tiny
import torch
from parity import DRAWN, SEEDS, apart, ours, refused, results, spoiled
from PIL import Image

from clipgen import Pipeline, Settings, SettingsError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_kandinsky(tmp_path_factory.mktemp("models") / "tiny-kandinsky")


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def peer(folder):
    options = {"dtype": torch.float32, "local_files_only": True}
    return diffusers.KandinskyV22CombinedPipeline.from_pretrained(folder, **options)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    levels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(levels).resize((90, 60), Image.Resampling.BICUBIC).save(path)
    return path


@torch.no_grad()
def theirs(peer, picture, guidance_scale):
    """Picture by picture, from the vectors that its own prior pipeline gives for the picture and for none."""
    peer.set_progress_bar_config(disable=True)
    prepared = peer.prior_image_processor(images=Image.open(picture), return_tensors="pt").pixel_values
    seen, nothing = peer.prior_image_encoder(prepared).image_embeds, peer.prior_pipe.get_zero_embed()
    drawn = [
        peer.decoder_pipe(
            image_embeds=seen,
            negative_image_embeds=nothing,
            generator=torch.Generator().manual_seed(seed),
            guidance_scale=guidance_scale,
            num_inference_steps=DRAWN["steps"],
            width=DRAWN["width"],
            height=DRAWN["height"],
            output_type="np",
        ).images[0]
        for seed in SEEDS
    ]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
def test_the_picture_is_diffusers_own(pipe, peer, picture, guidance_scale):
    drawn = ours(pipe, "", vary=str(picture), guidance_scale=guidance_scale)
    assert apart(drawn, theirs(peer, picture, guidance_scale)) <= 1e-3


def test_everything_told_is_seen_and_a_prompt_is_said_not_to_be(pipe, picture, tmp_path):
    other = tmp_path / "other.png"
    Image.new("RGB", (32, 32), "red").save(other)
    drawn = ours(pipe, "", vary=str(picture))
    assert apart(drawn, ours(pipe, "", vary=str(other))) > 2 / 255
    assert apart(drawn, ours(pipe, "", vary=f"{picture}:0.5")) > 1 / 255
    worded = results(pipe, "a fox", vary=str(picture))[0]
    assert [note.code for note in worded.warnings][:1] == ["prompt-unread"]
    assert apart(worded.pixels, drawn[0]) == 0


def test_a_loaded_pipeline_is_taken_over(pipe, peer, picture):
    assert apart(ours(Pipeline.from_diffusers(peer), "", vary=str(picture)), ours(pipe, "", vary=str(picture))) <= 1e-4


def test_without_a_picture_and_at_other_sizes_it_draws_nothing(pipe):
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
        ("model_index.json", {"_class_name": "KandinskyV22Pipeline"}, "'KandinskyV22Pipeline' is not supported"),
    ],
)
def test_folders_that_do_not_fit_are_refused_in_one_line(folder, tmp_path, file, changes, message):
    refused(spoiled(folder, tmp_path / "model", file, **changes), message)
