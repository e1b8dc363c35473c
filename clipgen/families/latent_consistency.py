"""Latent consistency models: Stable Diffusion 1 distilled to a few steps, with the guidance scale as an input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import shared, stable_diffusion

if TYPE_CHECKING:
    from torch import Tensor

STEPS, GUIDANCE_SCALE = 4, 8.0  # from the model card of LCM_Dreamshaper_v7
MAX_PERIOD = 10_000.0
SCALE = 1000.0  # of the guidance scale in its embedding


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit together, and for a UNet without the guidance scale input."""
    unet, text = networks["unet"], networks["text_encoder"].config
    shared.check_latents("unet", unet.config.in_channels, unet.config.out_channels, networks["vae"])
    shared.check_inputs(unet, "latent_consistency", allowed=("time_cond_proj_dim",))
    if not unet.config.time_cond_proj_dim:
        raise ModelError("unet/config.json: time_cond_proj_dim must be set; a latent consistency model needs it.")
    shared.check_embed_size("unet", "prompt_embeds", unet.config.cross_attention_dim, text.hidden_size)
    shared.check_lengths(tokenizers, networks, "tokenizer")


LAYOUT = replace(
    stable_diffusion.LAYOUT,
    family="latent_consistency",
    pipeline_classes=("LatentConsistencyModelPipeline",),
    networks={name: stable_diffusion.LAYOUT.networks[name] for name in ("unet", "vae", "text_encoder", "clip")},
    guidance="distilled",
    check=_check,
    image_networks=(),
)


class LatentConsistency(stable_diffusion.StableDiffusion):
    """The adapter of one loaded model; see the Family protocol. Luo et al. 2023 (arXiv 2310.04378)."""

    name = "latent_consistency"
    distilled = True

    def __init__(
        self, components: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
    ) -> None:
        super().__init__(components, scheduler_config, index)
        self.defaults = self._default_settings(self.unet.config.sample_size, STEPS, GUIDANCE_SCALE)

    def with_guidance_scale(self, conditioning: Mapping[str, Tensor], guidance_scale: float) -> Mapping[str, Tensor]:
        """Returns the conditioning with {timestep_cond [B, D]}, the embedding of the guidance scale."""
        states = conditioning["encoder_hidden_states"]
        embedding = guidance_embedding(guidance_scale, self.unet.config.time_cond_proj_dim).to(states)
        return {**conditioning, "timestep_cond": embedding.expand(len(states), -1)}


def guidance_embedding(guidance_scale: float, size: int) -> Tensor:
    """Returns the sinusoidal embedding [1, size] of w = guidance_scale - 1, the scale of cond + w (cond - uncond)."""
    import torch

    half = size // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(MAX_PERIOD) / (half - 1)))
    angles = SCALE * (guidance_scale - 1.0) * frequencies
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()]), (0, size % 2))[None]
