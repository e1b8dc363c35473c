from __future__ import annotations

import numpy
import pytest
import torch

from clipgen.decode import decode, decode_preview, is_broken
from clipgen.device import MemoryFallback
from clipgen.families import LAYOUTS, load_family
from clipgen.models import ModelFolder, preflight
from clipgen.pixels import to_image

CPU = torch.device("cpu")


def family_of(folder, dtype=torch.float32):
    return load_family(preflight(ModelFolder("./x", folder, "folder"), LAYOUTS), CPU, dtype)[0]


def latents(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def sd(tiny_epsilon):
    return family_of(tiny_epsilon)


@pytest.fixture(scope="module")
def storybook_like(tiny_v):
    return family_of(tiny_v)


def test_pixels_are_in_the_unit_interval(storybook_like):
    pixels = decode(storybook_like, latents(2, 8, 16, 16) * 9, (128, 128), MemoryFallback(CPU))
    assert pixels.shape == (2, 3, 128, 128)
    assert pixels.dtype == torch.float32
    assert 0 <= pixels.min() < pixels.max() <= 1


def test_constant_and_non_finite_images_are_broken():
    pixels = latents(4, 3, 8, 8)
    pixels[1] = 0.5
    pixels[2, 0, 0, 0] = torch.nan
    assert is_broken(pixels).tolist() == [False, True, True, False]


def test_a_decoder_with_nan_in_half_precision_switches_to_float32(tiny_v):
    family = family_of(tiny_v, torch.bfloat16)
    family.vae.decoder.register_forward_hook(
        lambda module, args, output: output * (torch.nan if output.dtype == torch.bfloat16 else 1)
    )
    assert decode(family, latents(1, 8, 16, 16), (128, 128), MemoryFallback(CPU)).isfinite().all()
    assert family.vae.dtype == torch.float32
    assert not family.decoder_to_float32()


def test_an_image_that_does_not_fit_into_memory_is_decoded_in_tiles(tiny_epsilon):
    family, memory, x0 = family_of(tiny_epsilon), MemoryFallback(CPU), latents(1, 4, 32, 48)
    whole = decode(family, x0, (96, 64), memory)
    assert not family.vae.use_tiling

    def refuse_large(module, args):
        if args[0].shape[-1] > 16:
            raise torch.OutOfMemoryError("Tried to allocate 8.00 GiB")

    family.vae.decoder.register_forward_pre_hook(refuse_large)
    tiled = decode(family, x0, (96, 64), memory)
    assert memory.measures((96, 64))[-1] == "decoding ran in tiles to fit into memory"
    assert (tiled - whole).abs().mean() <= 8 / 255
    assert not family.tile_decoder()


def test_the_preview_of_a_small_image_uses_the_decoder(storybook_like):
    x0 = latents(1, 8, 16, 16)
    assert torch.equal(
        decode_preview(storybook_like, x0, (128, 128)), decode(storybook_like, x0, (128, 128), MemoryFallback(CPU))
    )


def test_the_preview_of_a_large_image_uses_a_matrix(sd):
    """The first latent channel of Stable Diffusion is approximately brightness."""
    x0 = torch.zeros(1, 4, 160, 160)
    assert torch.allclose(decode_preview(sd, x0, (320, 320)), torch.full((1, 3, 320, 320), 0.5))
    x0[:, 0] = 2.0
    assert decode_preview(sd, x0, (320, 320)).mean() > 0.6
    assert not sd.decodes_fast(320, 320)
    assert sd.decodes_fast(256, 256)


def test_pixels_are_rounded_as_in_diffusers():
    pixels = torch.tensor([0.0, 0.1, 0.5, 0.9999, 1.0, 1.2]).repeat(3, 2, 1)
    image = to_image(pixels)
    assert image.size == (6, 2)
    assert numpy.asarray(image)[0, :, 0].tolist() == [0, 26, 128, 255, 255, 255]
