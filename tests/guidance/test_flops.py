from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import SettingsError
from clipgen.families import family_from_pipeline
from clipgen.guidance.budget import Choice, price
from clipgen.guidance.flops import (
    KL_DECODER,
    SD15_UNET,
    SDXL_UNET,
    TINY_DECODER,
    Cost,
    Growth,
    counted,
    decoder_cost,
    denoiser_cost,
    model_costs,
    view_cost,
)
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


TOLD = {"encoder_hidden_states": torch.zeros(1, 7, 32)}


@pytest.mark.parametrize(
    ("network", "measured"),
    [
        (SD15_UNET, (0.180, 0.803, 2.148, 4.674)),
        (SDXL_UNET, (0.428, 1.589, 3.641, 6.761)),
        (KL_DECODER, (0.622, 2.515, 5.754, 10.470)),
        (TINY_DECODER, (0.035, 0.141, 0.318, 0.565)),
    ],
)
def test_the_table_gives_the_measured_teraflops(network: Growth, measured: tuple[float, ...]) -> None:
    found = [network.at(side**2).forward / 1e12 for side in (32, 64, 96, 128)]
    assert found == pytest.approx(measured, rel=0.01)


def test_known_figures_of_the_way_back() -> None:
    assert SD15_UNET.at(64**2).backward / 1e12 == pytest.approx(0.92, rel=0.01)
    assert SDXL_UNET.at(128**2).backward / 1e12 == pytest.approx(7.46, rel=0.01)
    assert KL_DECODER.at(128**2).backward / 1e12 == pytest.approx(11.02, rel=0.01)


def test_a_matrix_is_counted_as_it_is_written_down() -> None:
    matrix = torch.zeros(5, 3)
    assert counted(lambda x: x @ matrix, (7, 5), "cpu") == Cost(2 * 7 * 5 * 3, 2 * 7 * 5 * 3)


def test_attention_is_counted_on_every_device() -> None:
    def attend(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    products = 2 * 2 * 3 * 11 * 11 * 8  # heads, places, places, width
    assert (
        counted(attend, (1, 3, 11, 8), "cpu") == counted(attend, (1, 3, 11, 8), "meta") == Cost(products, 2 * products)
    )


def test_a_network_is_counted_without_its_weights_as_with_them(family: Any) -> None:
    shape = family.latent_shape(*SIZE)
    real = counted(lambda x: family.predict(x, torch.tensor(1), TOLD), (1, *shape), "cpu")
    assert denoiser_cost(family, TOLD, shape) == real
    assert decoder_cost(family, "full", shape, 32) == counted(family.decode, (1, *shape), "cpu")
    assert 0.8 < real.backward / real.forward < 2


def test_counting_leaves_the_model_as_it_was(family: Any, encoder: ClipEncoder) -> None:
    before = {name: weight.clone() for name, weight in family.unet.state_dict().items()}
    state = torch.get_rng_state()
    model_costs(family, TOLD, [encoder], (32, 32), "full")
    assert all(torch.equal(weight, before[name]) for name, weight in family.unet.state_dict().items())
    assert all(weight.grad is None for weight in family.unet.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert family.vae.device.type == "cpu"


def test_facts_are_counted_once_and_grow_with_the_picture(family: Any, encoder: ClipEncoder) -> None:
    facts = model_costs(family, TOLD, [encoder], SIZE)
    again = model_costs(family, {}, [encoder], SIZE)  # nothing is asked of the denoiser again
    assert facts == again
    assert facts.guide.forward < facts.decoder.forward / 100  # latents to colours
    assert facts.view.both > view_cost(encoder).forward > 0
    assert model_costs(family, TOLD, [encoder, encoder], SIZE).view == facts.view + facts.view
    larger = model_costs(family, TOLD, [encoder], (128, 128), "full")
    assert larger.guide == larger.decoder
    assert 4 <= larger.decoder.forward / facts.decoder.forward < 16  # convolutions and attention
    made = Settings("a fox", steps=20, scheduler="ddim", guidance_scale=4.0, eta=0.0, cutouts=4, guidance_every=1)
    assert 1 < price(made, facts, Choice("clip")) < price(made, facts, Choice("clip", through_unet=True))


def test_a_guide_decoder_that_is_not_there_is_refused(family: Any, encoder: ClipEncoder) -> None:
    with pytest.raises(SettingsError, match="guide_decoder 'latent' is none of this model's"):
        model_costs(family, TOLD, [encoder], SIZE, "latent")
