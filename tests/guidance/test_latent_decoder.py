from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clipgen.errors import SettingsError
from clipgen.families import LAYOUTS, load_family
from clipgen.guidance.latent_decoder import available_decoders, fit_latent_rgb, latent_decoder
from clipgen.models import find_model, preflight


def family_of(folder):
    family, _ = load_family(preflight(find_model(str(folder)), LAYOUTS), torch.device("cpu"), torch.float32)
    return family


@pytest.fixture(scope="module")
def with_tiny(tiny_v):
    return family_of(tiny_v)


@pytest.fixture(scope="module")
def with_matrix(tiny_epsilon):
    """A model like SD 1: a KL decoder with scale factor 2, and the colour matrix of SD 1's four channels."""
    return family_of(tiny_epsilon)


def latents(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_auto_is_the_first_available_decoder(with_tiny, with_matrix):
    assert list(available_decoders(with_tiny)) == ["tiny", "pooled", "linear", "full"]
    assert list(available_decoders(with_matrix)) == ["linear", "pooled", "full"]
    x0 = latents(1, 8, 8, 8)
    assert torch.equal(latent_decoder(with_tiny, "auto", 32)(x0), with_tiny.decode(x0))
    x0 = latents(1, 4, 16, 16)
    assert latent_decoder(with_matrix, "auto", 32)(x0).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("name", ["tiny", "latent", "wide"])
def test_unavailable_decoder_raises_with_the_available_ones(with_matrix, name):
    with pytest.raises(SettingsError) as error:
        latent_decoder(with_matrix, name, 32)
    line = f"guide_decoder '{name}' is not available for this model. Works: auto, linear, pooled, full."
    assert (str(error.value), error.value.field) == (line, "guide_decoder")
    assert error.value.allowed == ["auto", "linear", "pooled", "full"]


@pytest.mark.parametrize("name", ["tiny", "pooled", "linear", "full"])
def test_gradients_reach_every_latent(with_tiny, name):
    x0 = latents(2, 8, 8, 12).requires_grad_()
    pixels = latent_decoder(with_tiny, name, 32)(x0)
    (gradient,) = torch.autograd.grad(pixels.square().sum(), x0)
    assert (gradient.abs().sum(dim=1) > 0).all()
    assert pixels.shape[-1] / pixels.shape[-2] == pytest.approx(12 / 8)


@pytest.mark.parametrize(("side", "shape"), [(8, (32, 64)), (16, (32, 64)), (12, (32, 64)), (64, (32, 64))])
def test_pooled_decodes_to_about_clips_image_size(with_matrix, side, shape):
    pixels = latent_decoder(with_matrix, "pooled", side)(latents(1, 4, 16, 32))
    cells = max(1, 16 // (side // 2))
    assert pixels.shape[-2:] == tuple(2 * -(-(size // 2) // cells) for size in shape)
    assert min(pixels.shape[-2:]) >= min(side, 32)


def test_small_latents_are_not_pooled(with_matrix):
    x0 = latents(1, 4, 16, 16)
    assert torch.equal(latent_decoder(with_matrix, "pooled", 32)(x0), with_matrix.decode(x0))
    halved = F.interpolate(x0, scale_factor=0.5, mode="area")
    assert torch.equal(latent_decoder(with_matrix, "pooled", 16)(x0), with_matrix.decode(halved))


def test_linear_uses_the_models_matrix(with_matrix):
    x0 = latents(1, 4, 16, 16)
    colours = torch.einsum("bchw,cr->brhw", x0, with_matrix.latent_rgb) / 2 + 0.5
    assert torch.allclose(latent_decoder(with_matrix, "linear", 32)(x0), colours, atol=1e-6)


@dataclass(eq=False)
class Affine:
    """A decoder whose pixels are an affine map of their latent."""

    matrix: torch.Tensor
    offset: torch.Tensor
    vae: Any
    latent_rgb: None = None

    def latent_shape(self, width, height):
        return len(self.matrix), height // 8, width // 8

    def decode(self, x0):
        colours = torch.einsum("bchw,cr->brhw", x0, self.matrix) + self.offset[:, None, None]
        return F.interpolate(colours / 2 + 0.5, scale_factor=8.0, mode="nearest")


def test_fitted_matrix_recovers_an_affine_decoder(with_tiny):
    affine = Affine(0.05 * latents(16, 3), torch.tensor([0.1, 0.0, -0.2]), with_tiny.vae)
    matrix, offset = fit_latent_rgb(affine)
    assert torch.allclose(matrix, affine.matrix, atol=1e-5)
    assert torch.allclose(offset, affine.offset, atol=1e-5)
    x0 = latents(2, 16, 8, 8)
    small = F.avg_pool2d(affine.decode(x0), 8)
    assert torch.allclose(latent_decoder(affine, "linear", 32)(x0), small, atol=1e-5)


def test_fit_is_deterministic_and_leaves_the_global_generator(with_tiny):
    before = torch.random.get_rng_state()
    assert all(torch.equal(*pair) for pair in zip(fit_latent_rgb(with_tiny), fit_latent_rgb(with_tiny), strict=True))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_float16_vae_is_decoded_by_a_float32_copy(tiny_v, with_tiny):
    half = family_of(tiny_v)
    half.vae.half()
    x0 = latents(1, 8, 8, 8)
    assert torch.allclose(latent_decoder(half, "tiny", 32)(x0), with_tiny.decode(x0), atol=1e-2)
    assert half.vae.dtype == torch.float16


def test_matrix_is_fitted_once_per_model(with_tiny):
    calls: list[int] = []

    class Counted(Affine):
        def decode(self, x0):
            calls.append(len(x0))
            return super().decode(x0)

    for offset in (torch.zeros(3), torch.ones(3)):
        family = Counted(0.05 * latents(16, 3), offset, with_tiny.vae)
        twice = [latent_decoder(family, "linear", 32)(latents(1, 16, 4, 4)) for _ in range(2)]
        assert torch.equal(*twice)
        assert float(twice[0].mean()) == pytest.approx(0.5 + float(offset.mean()) / 2, abs=0.1)
    assert len(calls) == 2
