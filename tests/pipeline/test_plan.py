from __future__ import annotations

from functools import partial

import pytest
import torch

from clipgen.errors import SettingsError
from clipgen.pipeline.plan import plan
from clipgen.settings.checks import MAX_SEED
from clipgen.settings.settings import Settings

CPU = torch.device("cpu")
DEFAULTS = {"steps": 30, "width": 128, "height": 128, "scheduler": "ddim", "guidance_scale": 4.0, "eta": 0.0}


def latent_shape(width, height, factor=8):
    return 4, height // factor, width // factor


def batches(**settings):
    return plan(Settings(**{"prompt": "a fox", "seed": 5, **settings}), "storybook", DEFAULTS, latent_shape, CPU)


def test_missing_settings_are_the_defaults_of_the_model():
    (batch,) = batches(steps=10)
    assert (batch.steps, batch.size, batch.scheduler, batch.guidance_scale, batch.eta) == (
        10,
        (128, 128),
        "ddim",
        4.0,
        0.0,
    )
    (image,) = batch.images
    assert image == Settings(prompt="a fox", seed=5, **{**DEFAULTS, "steps": 10})


def test_seeds_increase_and_wrap_around():
    (batch,) = batches(seed=MAX_SEED, images=3)
    assert batch.seeds == [MAX_SEED, 0, 1]
    assert {image.images for image in batch.images} == {1}


def test_a_random_seed_is_below_two_to_the_32():
    seeds = {batches(seed=None)[0].seeds[0] for _ in range(8)}
    assert len(seeds) > 1
    assert max(seeds) < 2**32


def test_the_batch_size_depends_on_the_latents():
    assert [(batch.first, len(batch.images)) for batch in batches(images=19)] == [(0, 8), (8, 8), (16, 3)]
    assert [len(batch.images) for batch in batches(images=3, width=512, height=512)] == [1, 1, 1]
    settings = Settings("a fox", seed=5, images=9, width=256, height=256)
    of_factor_16 = plan(settings, "storybook", DEFAULTS, partial(latent_shape, factor=16), CPU)
    assert [len(batch.images) for batch in of_factor_16] == [8, 1]


def test_the_text_for_clip_has_no_prompt_syntax():
    assert batches(prompt="a (fox:1.3) in [snow]")[0].texts == ["a fox in snow"]
    assert batches(prompt="a (fox:1.3)", prompt_syntax="plain")[0].texts == ["a (fox:1.3)"]


def test_a_resolved_prompt_keeps_its_template():
    (image,) = batches(prompt="a {red|blue} fox")[0].images
    assert image.prompt in ("a red fox", "a blue fox")
    assert image.prompt_template == "a {red|blue} fox"
    (again,) = plan(image, "storybook", DEFAULTS, latent_shape, CPU)[0].images
    assert again == image


def test_invalid_defaults_of_a_model_are_refused():
    with pytest.raises(SettingsError, match="width must be"):
        plan(Settings(prompt="a fox"), "x", {**DEFAULTS, "width": 32}, latent_shape, CPU)
