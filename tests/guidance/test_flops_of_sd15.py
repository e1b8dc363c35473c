"""The cost of a guided step of Stable Diffusion 1.5, counted on the real architecture without weights."""

from __future__ import annotations

from collections.abc import Callable

import tiny
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clipgen.clip.encoder import ClipEncoder
from clipgen.families import Conditioning
from clipgen.guidance.classifier_free import classifier_free
from clipgen.guidance.clip_gradient import ClipGradient, with_correction
from clipgen.guidance.flops import SD15_UNET
from clipgen.guidance.targets import ClipTarget
from clipgen.sampling.loop import StepInput
from clipgen.sampling.prediction import NoiseLevel

META = torch.device("meta")


def unet() -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    with META:  # the defaults of the class are SD 1.5, except for the width of the text encoder
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768).requires_grad_(False)


def decoder() -> torch.nn.Module:
    from diffusers import AutoencoderTiny

    with META:
        return AutoencoderTiny().requires_grad_(False)


def vit_b32() -> ClipEncoder:
    from transformers import CLIPConfig, CLIPModel

    words = tiny.tokenizer()
    with META:
        model = CLIPModel(CLIPConfig()).requires_grad_(False)
    return ClipEncoder("B/32", model, words, {})


def total_flops(call: Callable[[], object]) -> float:
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_guided_step_of_sd15_costs_at_most_a_quarter_more() -> None:
    network, vae, encoder = unet(), decoder(), vit_b32()
    assert sum(weight.numel() for weight in network.parameters()) == 859_520_964

    def predict(latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        return network(latents, timestep, **conditioning, return_dict=False)[0]

    prompt = {"encoder_hidden_states": torch.zeros(1, 77, 768, device=META)}
    latents = torch.zeros(1, 4, 64, 64, device=META)
    step_input = StepInput(latents, lambda x: x, torch.zeros((), device=META), NoiseLevel(0.6, 0.8), "epsilon", 5, 20)
    target = ClipTarget(encoder, torch.zeros(1, 1, 512, device=META), torch.ones(1, device=META))

    def decode(x0: torch.Tensor) -> torch.Tensor:
        return vae.decode(x0.clone(), return_dict=False)[0] / 2 + 0.5  # the counter needs an input that is no leaf

    gradient = ClipGradient([target], decode, scale=0.25)
    plain = classifier_free(predict, prompt, prompt, scale=7.5)
    corrected = with_correction(plain, gradient, (1,))
    without, guided = total_flops(lambda: plain(step_input)), total_flops(lambda: corrected(step_input))
    assert 2 * SD15_UNET.at(64**2).forward / 1.01 < without < 2 * SD15_UNET.at(64**2).forward * 1.01
    assert 1.1 < guided / without <= 1.25
