"""ClipGuider on a modular pipeline: similarity rises, and the scheduler is as before after each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attach.support import similarity
from attach.tiny_pipelines import PIPELINES, PROMPT

from clipgen import ClipGuider, SettingsError


@pytest.fixture(scope="module")
def pipe() -> Any:
    from diffusers.modular_pipelines.stable_diffusion_xl import StableDiffusionXLAutoBlocks

    components, _ = PIPELINES["StableDiffusionXLPipeline"]()
    pipe = StableDiffusionXLAutoBlocks().init_pipeline()
    pipe.update_components(**components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    images = pipe(
        prompt=PROMPT,
        num_inference_steps=4,
        height=64,
        width=64,
        generator=generator,
        output="images",
        output_type="pt",
    )
    return torch.as_tensor(images).float()


def test_modular_pipeline_is_guided(pipe: Any, tiny_v: Path) -> None:
    clip, own = str(tiny_v / "clip"), pipe.guider
    plain = draw(pipe)
    guider = ClipGuider(pipe, PROMPT, scale=1.0, clip_models=[clip], guidance_start=0, guide_decoder="full")
    pipe.update_components(guider=guider)
    guided = draw(pipe)
    assert torch.equal(draw(pipe), guided)
    assert similarity(clip, guided) > similarity(clip, plain)
    assert len(guider.curve()) == 3
    assert "step" not in vars(pipe.scheduler)
    assert not pipe.unet._forward_pre_hooks
    assert guider.new(guidance_scale=3.0).guider.guidance_scale == 3.0
    pipe.update_components(guider=own)
    assert torch.equal(draw(pipe), plain)


def test_wrong_fields_are_refused(pipe: Any, tiny_v: Path) -> None:
    with pytest.raises(SettingsError, match="ClipGuidance takes no steps"):
        ClipGuider(pipe, PROMPT, clip_models=[str(tiny_v / "clip")], steps=3)
