from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import SettingsError
from clipgen.families import Conditioning, family_from_pipeline
from clipgen.guidance.budget import Choice, price
from clipgen.guidance.flops import (
    KL_DECODER,
    SD15_UNET,
    SDXL_UNET,
    TINY_DECODER,
    Cost,
    CostByLatents,
    ModelCosts,
    count_flops,
    decoder_cost,
    denoiser_cost,
    model_costs,
    view_cost,
)
from clipgen.guidance.targets import GuidanceEncoders
from clipgen.settings.settings import Settings

SIZE = (64, 64)


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    words = tiny.tokenizer()
    return ClipEncoder("tiny", tiny.clip(words), words, {})


@pytest.fixture(scope="module")
def family() -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    words = tiny.tokenizer()
    return family_from_pipeline(
        StableDiffusionPipeline(
            vae=tiny.vae_kl(),
            text_encoder=tiny.text_encoder(words),
            tokenizer=words,
            unet=tiny.unet(),
            scheduler=DDIMScheduler(**tiny.BETAS, clip_sample=False),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


CONDITIONING = {"encoder_hidden_states": torch.zeros(1, 7, 32)}


def costs_of(
    family: Any,
    *encoders: ClipEncoder,
    size: tuple[int, int] = SIZE,
    guide_decoder: str = "auto",
    conditioning: Conditioning = CONDITIONING,
) -> ModelCosts:
    width, height = size
    settings = Settings("a fox", width=width, height=height, guide_decoder=guide_decoder)
    return model_costs(settings, family, conditioning, GuidanceEncoders(encoders, veto=None, own=None))


@pytest.mark.parametrize(
    ("network", "measured"),
    [
        (SD15_UNET, (0.180, 0.803, 2.148, 4.674)),
        (SDXL_UNET, (0.428, 1.589, 3.641, 6.761)),
        (KL_DECODER, (0.622, 2.515, 5.754, 10.470)),
        (TINY_DECODER, (0.035, 0.141, 0.318, 0.565)),
    ],
)
def test_table_matches_measured_forward_teraflops(network: CostByLatents, measured: tuple[float, ...]) -> None:
    teraflops = [network.at(side**2).forward / 1e12 for side in (32, 64, 96, 128)]
    assert teraflops == pytest.approx(measured, rel=0.01)


def test_table_matches_measured_backward_teraflops() -> None:
    assert SD15_UNET.at(64**2).backward / 1e12 == pytest.approx(0.92, rel=0.01)
    assert SDXL_UNET.at(128**2).backward / 1e12 == pytest.approx(7.46, rel=0.01)
    assert KL_DECODER.at(128**2).backward / 1e12 == pytest.approx(11.02, rel=0.01)


def test_count_flops_of_a_matrix_product() -> None:
    matrix = torch.zeros(5, 3)
    assert count_flops(lambda x: x @ matrix, (7, 5), "cpu") == Cost(2 * 7 * 5 * 3, 2 * 7 * 5 * 3)


def test_attention_is_counted_on_cpu_and_meta() -> None:
    def attend(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    products = 2 * 2 * 3 * 11 * 11 * 8  # heads, tokens, tokens, width
    assert (
        count_flops(attend, (1, 3, 11, 8), "cpu")
        == count_flops(attend, (1, 3, 11, 8), "meta")
        == Cost(products, 2 * products)
    )


def test_meta_device_and_real_weights_give_equal_counts(family: Any) -> None:
    shape = family.latent_shape(*SIZE)
    real = count_flops(lambda x: family.predict(x, torch.tensor(1), CONDITIONING), (1, *shape), "cpu")
    assert denoiser_cost(family, CONDITIONING, shape) == real
    assert decoder_cost(family, "full", shape, 32) == count_flops(family.decode, (1, *shape), "cpu")
    assert 0.8 < real.backward / real.forward < 2


def test_counting_does_not_change_the_model(family: Any, encoder: ClipEncoder) -> None:
    before = {name: weight.clone() for name, weight in family.unet.state_dict().items()}
    state = torch.get_rng_state()
    costs_of(family, encoder, size=(64, 64), guide_decoder="full")
    assert all(torch.equal(weight, before[name]) for name, weight in family.unet.state_dict().items())
    assert all(weight.grad is None for weight in family.unet.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert family.vae.device.type == "cpu"


def test_model_costs_are_cached_and_grow_with_image_size(family: Any, encoder: ClipEncoder) -> None:
    costs = costs_of(family, encoder)
    assert costs_of(family, encoder, conditioning={}) == costs  # the denoiser does not run again
    assert costs.guide_decoder.forward < costs.decoder.forward / 100  # a matrix
    assert costs.view.both > view_cost(encoder).forward > 0
    assert costs_of(family, encoder, encoder).view == costs.view + costs.view
    larger = costs_of(family, encoder, size=(128, 128), guide_decoder="full")
    assert larger.guide_decoder == larger.decoder
    assert 4 <= larger.decoder.forward / costs.decoder.forward < 16  # convolutions and attention
    settings = Settings("a fox", steps=20, scheduler="ddim", guidance_scale=4.0, eta=0.0, cutouts=4, guidance_every=1)
    assert 1 < price(settings, costs, Choice("clip")) < price(settings, costs, Choice("clip", through_unet=True))


def test_unavailable_guide_decoder_raises(family: Any, encoder: ClipEncoder) -> None:
    with pytest.raises(SettingsError, match="guide_decoder 'latent' is not available for this model"):
        costs_of(family, encoder, guide_decoder="latent")
