"""through_unet refuses quantised denoisers, by their mark or by their layers."""

from __future__ import annotations

import copy
import warnings

import diffusers
import pytest
import tiny
import torch

from clipgen import Pipeline, Settings, SettingsError
from clipgen.guidance.quantisation import is_quantised

REFUSED = r"^through_unet needs a denoiser that back-propagates; '.+' is quantised\. Use through_unet=false\.$"


def quantised(network: torch.nn.Module) -> torch.nn.Module:
    """Returns a copy of the network with linear layers in 8-bit integers, by torch's quantiser."""
    with warnings.catch_warnings(action="ignore"):
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(network), {torch.nn.Linear}, dtype=torch.qint8)


def test_is_quantised_by_layers_weights_and_mark():
    plain = torch.nn.Sequential(torch.nn.Linear(8, 8))
    assert not is_quantised(plain)
    assert is_quantised(quantised(plain))
    packed = torch.nn.Sequential(torch.nn.Linear(8, 8))  # bitsandbytes packs two weights into a byte
    packed[0].weight = torch.nn.Parameter(torch.zeros(32, 1, dtype=torch.uint8), requires_grad=False)
    assert is_quantised(packed)
    marked = tiny.unet()
    assert not is_quantised(marked)
    marked.is_quantized = True  # set by diffusers' quantizers
    assert is_quantised(marked)


def test_quantised_denoiser_generates_and_refuses_through_unet(tmp_path):
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        tiny.save_epsilon(tmp_path / "model"), local_files_only=True
    )
    pipeline.unet = quantised(pipeline.unet)
    pipe = Pipeline.from_diffusers(pipeline)
    settings = Settings("a fox", seed=1, steps=2, width=64, height=64)
    with pytest.raises(SettingsError, match=REFUSED):
        pipe.run(settings.replace(guidance="clip", through_unet=True))
    assert len(pipe.run(settings.replace(through_unet=True))) == 1  # without guidance the field has no effect
