"""Which denoisers `through_unet` refuses: marked ones, and real quantised layers."""

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
    """The network with its linear layers in 8-bit integers, by torch's own quantiser."""
    with warnings.catch_warnings(action="ignore"):
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(network), {torch.nn.Linear}, dtype=torch.qint8)


def test_it_is_told_by_layers_weights_and_marks():
    plain = torch.nn.Sequential(torch.nn.Linear(8, 8))
    assert not is_quantised(plain)
    assert is_quantised(quantised(plain))
    packed = torch.nn.Sequential(torch.nn.Linear(8, 8))  # as bitsandbytes packs two weights into a byte
    packed[0].weight = torch.nn.Parameter(torch.zeros(32, 1, dtype=torch.uint8), requires_grad=False)
    assert is_quantised(packed)
    marked = tiny.unet()
    assert not is_quantised(marked)
    marked.is_quantized = True  # diffusers' quantizers leave this on every model they made
    assert is_quantised(marked)


def test_a_quantised_denoiser_draws_and_refuses_through_unet(tmp_path):
    peer = diffusers.StableDiffusionPipeline.from_pretrained(
        tiny.save_epsilon(tmp_path / "model"), local_files_only=True
    )
    peer.unet = quantised(peer.unet)
    pipe = Pipeline.from_diffusers(peer)
    wanted = Settings("a fox", seed=1, steps=2, width=64, height=64)
    with pytest.raises(SettingsError, match=REFUSED):
        pipe.run(wanted.replace(guidance="clip", through_unet=True))
    assert len(pipe.run(wanted.replace(through_unet=True))) == 1  # says nothing where nothing steers
