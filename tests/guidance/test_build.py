"""Guidance of a batch: its shared parts are built once, and the VAE is copied to float32 at most once."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from clipgen.clip.encoder import ClipEncoder
from clipgen.families import LAYOUTS, load_family
from clipgen.guidance.build import build_guidance
from clipgen.models import find_model, preflight
from clipgen.sampling.loop import StepState
from clipgen.settings.settings import GUIDANCE_DEFAULTS, Settings


class AutoencoderTiny(diffusers.AutoencoderTiny):
    """The same network under the same class name; it counts its deep copies."""

    copies = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.nn.Module:
        AutoencoderTiny.copies += 1
        duplicate = diffusers.AutoencoderTiny.from_config(self.config)
        duplicate.load_state_dict(self.state_dict())
        return duplicate.to(self.dtype)


@pytest.fixture
def model(tiny_v: Any) -> tuple[Any, ClipEncoder]:
    family, scorer = load_family(preflight(find_model(str(tiny_v)), LAYOUTS), torch.device("cpu"), torch.float32)
    assert scorer is not None
    family.vae.half().__class__ = AutoencoderTiny
    AutoencoderTiny.copies = 0
    return family, scorer.encoder


def guidance_of(model: tuple[Any, ClipEncoder], **fields: Any) -> Any:
    family, encoder = model
    settings = Settings("a fox", **fields).with_defaults(GUIDANCE_DEFAULTS)
    clips = {"own": encoder, "scorer": encoder, "load": lambda name: encoder}
    return build_guidance(settings, family, ["a fox"], [3], model="tiny", **clips)


def state_of(latents: torch.Tensor, index: int) -> StepState:
    seeds = tuple(range(len(latents)))
    return StepState(latents, latents, latents, 0.9 * latents, 0.6, 0.8, index / 10, index, 10, seeds)


@pytest.mark.parametrize("decoder", ["tiny", "pooled"])
def test_vae_in_half_precision_is_copied_once_per_batch(model: tuple[Any, ClipEncoder], decoder: str) -> None:
    """The correction and the selection share one float32 copy, over all steps."""
    guidance = guidance_of(model, guidance="clip+pick", candidates=2, guide_decoder=decoder)
    assert AutoencoderTiny.copies == 0
    latents = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    for index in (1, 2, 4):  # 4 = 0.4 of 10 steps, where pick halves
        assert guidance.correction(state_of(latents, index)).isfinite().all()
    assert len(guidance.selection(state_of(latents, 4))) == 1
    assert AutoencoderTiny.copies == 1
    assert model[0].vae.dtype == torch.float16


def test_correction_and_rewards_share_one_target(model: tuple[Any, ClipEncoder]) -> None:
    guidance = guidance_of(model, guidance="clip", guide=["snow:0.5"])
    assert guidance.correction.targets == (guidance.target,)
    assert guidance.target.embeddings.shape[:2] == (1, 2)
    assert guidance.target.weights.tolist() == [1.0, 0.5]
    assert not guidance.target.embeddings.requires_grad


def test_off_builds_nothing(model: tuple[Any, ClipEncoder]) -> None:
    guidance = guidance_of(model)
    assert (guidance.seeds, guidance.correction, guidance.selection, guidance.target) == ((3,), None, None, None)
