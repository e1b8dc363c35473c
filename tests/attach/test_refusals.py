"""Pipelines that cannot be guided are refused at construction, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from attach.tiny_pipelines import PROMPT, build

from clipgen import ClipgenError, ClipGuidance


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("DDPMPipeline", "DDPMPipeline has no VAE. ClipGuidance guides latent diffusion, not pixels or embeddings."),
        ("WanPipeline", "WanPipeline generates videos. ClipGuidance guides pipelines that generate images."),
        ("AnimateDiffPipeline", "AnimateDiffPipeline generates videos. "),
        ("QwenImageLayeredPipeline", "QwenImageLayeredPipeline generates several layers per image. "),
        ("AmusedPipeline", "Scheduler 'Amused' cannot be guided. Works: ddim, "),
    ],
)
def test_refused(tiny_v: Path, name: str, line: str) -> None:
    pipe, _ = build(name)
    with pytest.raises(ClipgenError) as error:
        ClipGuidance(pipe, PROMPT, clip_models=[str(tiny_v / "clip")])
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
