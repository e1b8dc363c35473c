from __future__ import annotations

import pytest
import tiny
from parity import clipgen_results, copy_with_changes

from clipgen import Pipeline
from clipgen.families.few_step import few_step_defaults

LEADING = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}


@pytest.mark.parametrize(
    ("model", "family", "steps", "guidance_scale"),
    [
        ("stabilityai/sdxl-turbo", "stable_diffusion_xl", 4, 0.0),
        ("stabilityai/stable-diffusion-3.5-large-turbo", "stable_diffusion_3", 4, 0.0),
        ("Tongyi-MAI/Z-Image-Turbo@main", "z_image", 8, 0.0),
        ("./models/RealVisXL_V4.0_Lightning/", "stable_diffusion_xl", 4, 1.0),
        ("org/my-SDXL-Lightning-8step", "stable_diffusion_xl", 8, 1.0),
        ("C:\\models\\dreamshaper-8-lcm", "stable_diffusion", 8, 1.5),
        ("org/Hyper-SD15-2-steps", "stable_diffusion", 2, 0.0),
    ],
)
def test_a_name_tells_that_a_model_needs_few_steps(model, family, steps, guidance_scale):
    assert few_step_defaults(model, family, LEADING) == {"steps": steps, "guidance_scale": guidance_scale}


def test_the_shift_tells_z_image_from_z_image_turbo():
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    assert few_step_defaults("./model", "z_image", {**flow, "shift": 3.0}) == {"steps": 8, "guidance_scale": 0.0}
    assert few_step_defaults("./model", "z_image", {**flow, "shift": 6.0}) == {}
    assert few_step_defaults("./model", "stable_diffusion_3", {**flow, "shift": 3.0}) == {}


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        ({"_class_name": "LCMScheduler"}, 8),
        ({"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}, 4),
    ],
)
def test_a_scheduler_tells_it_if_the_name_does_not(config, steps):
    assert few_step_defaults("./model", "stable_diffusion", config)["steps"] == steps


@pytest.mark.parametrize("model", ["org/hyperrealism", "turbo/model", "org/100-steps-of-art", "storybook"])
def test_other_models_keep_the_defaults_of_their_family(model):
    zero_terminal = {**LEADING, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    assert few_step_defaults(model, "stable_diffusion", LEADING) == {}
    assert few_step_defaults(model, "stable_diffusion", zero_terminal) == {}


def test_a_turbo_folder_is_drawn_with_few_steps(tmp_path):
    folder = tiny.save_xl(tmp_path / "tiny-turbo")
    assert clipgen_results(Pipeline.from_pretrained(str(folder)), steps=None)[0].settings.steps == 4
    other = copy_with_changes(folder, tmp_path / "model", "scheduler/scheduler_config.json")
    assert Pipeline.from_pretrained(str(other)).defaults["steps"] == 30
    trailing = {"timestep_spacing": "trailing"}
    trailing_folder = copy_with_changes(folder, tmp_path / "own", "scheduler/scheduler_config.json", **trailing)
    defaults = Pipeline.from_pretrained(str(trailing_folder)).defaults
    assert (defaults["steps"], defaults["guidance_scale"]) == (4, 0.0)
