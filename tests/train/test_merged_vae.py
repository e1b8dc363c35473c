"""Merged outer layers compute what the layers of AutoencoderTiny compute, and split back into them."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderTiny

from clipgen.train.merged_vae import MergedVae
from clipgen.train.vae import build_vae

BORDER = 4  # pixels in which the unmerged form pads differently


def autoencoder_of_factor_8() -> AutoencoderTiny:
    """Builds an autoencoder whose decoder ends with a residual block, which cannot be merged."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4,
        num_encoder_blocks=(0, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1), latent_channels=8,
    )  # fmt: skip


@pytest.mark.parametrize("build", [build_vae, autoencoder_of_factor_8])
def test_merged_and_unmerged_agree(build: object) -> None:
    torch.manual_seed(0)
    vae = build().eval()  # type: ignore[operator]
    merged = MergedVae(vae).eval()
    split = merged.unmerged().eval()
    images = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        inner = (..., slice(1, -1), slice(1, -1))
        first_two = vae.encoder.layers[1](vae.encoder.layers[0](images))
        assert torch.allclose(merged.encoder[0](images)[inner], first_two[inner], atol=1e-5)
        latents = vae.encode(images).latents
        decoded, inside = vae.decode(latents).sample, (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
        assert torch.allclose(merged.decode(latents)[inside], decoded[inside], atol=1e-5)
        assert torch.allclose(split.encode(images).latents, merged.encode(images), atol=1e-5)
        assert torch.allclose(split.decode(latents).sample, merged.decode(latents), atol=1e-5)


def test_a_frozen_encoder_stays_frozen() -> None:
    vae = build_vae()
    vae.encoder.requires_grad_(False)
    merged = MergedVae(vae)
    assert not any(parameter.requires_grad for parameter in merged.encoder.parameters())
    assert all(parameter.requires_grad for parameter in merged.decoder.parameters())
