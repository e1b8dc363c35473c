"""Stable Diffusion 3 and 3.5: a flow-matching transformer conditioned on two CLIP text encoders and T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import shared
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import (
    PromptEmbeds,
    clip_text_encoder,
    penultimate_layer_and_projection,
    t5_text_encoder,
)
from clipgen.models import Layout, NetworkSpec, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 28
GUIDANCE_SCALE, GUIDANCE_SCALE_35 = 7.0, 4.5  # from the model cards of 3 and of 3.5
T5_TOKENS = 256


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit together."""
    config = networks["transformer"].config
    text, text_2 = networks["text_encoder"].config, networks["text_encoder_2"].config
    shared.check_latents("transformer", config.in_channels, networks["transformer"].out_channels, networks["vae"])
    pooled_size = text.projection_dim + text_2.projection_dim
    shared.check_embed_size("transformer", "pooled_prompt_embeds", config.pooled_projection_dim, pooled_size)
    shared.check_lengths(tokenizers, networks, "tokenizer", "tokenizer_2")
    if "text_encoder_3" in networks:
        t5_size = networks["text_encoder_3"].config.d_model
        shared.check_embed_size("transformer", "prompt_embeds", config.joint_attention_dim, t5_size)
    if text.hidden_size + text_2.hidden_size > config.joint_attention_dim:
        raise ModelError("transformer/config.json: joint_attention_dim is too small for both CLIP text encoders.")
    if config.caption_projection_dim != config.num_attention_heads * config.attention_head_dim:
        raise ModelError("transformer/config.json: caption_projection_dim is not the width of its layers.")


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    config = networks["transformer"].config
    patch_pixels = vae_scale_factor(networks["vae"]) * config.patch_size
    return SizeLimits(patch_pixels, max_size=patch_pixels * config.pos_embed_max_size)


LAYOUT = Layout(
    family="stable_diffusion_3",
    pipeline_classes=("StableDiffusion3Pipeline",),
    networks={
        "transformer": NetworkSpec((("diffusers", "SD3Transformer2DModel"),)),
        "vae": shared.VAE,
        "text_encoder": shared.CLIP_TEXT_PROJECTED,
        "text_encoder_2": shared.CLIP_TEXT_PROJECTED,
        "text_encoder_3": replace(shared.T5_TEXT, required=False),
        "clip": shared.CLIP,
    },
    tokenizers={
        "tokenizer": shared.CLIP_TOKENIZER,
        "tokenizer_2": shared.CLIP_TOKENIZER,
        "tokenizer_3": shared.T5_TOKENIZER,
    },
    schedulers=shared.FLOW_SCHEDULERS,
    unused=shared.UNUSED,
    predictions=("flow",),
    guidance="classifier-free",
    check=_check,
    size_limits=_size_limits,
    lora_loader="SD3LoraLoaderMixin",
    prefers_bfloat16=True,
)


class StableDiffusion3(LatentFamily):
    """The adapter of one loaded model; see the Family protocol. Esser et al. 2024 (arXiv 2403.03206).

    Without T5 (text_encoder_3) its embeddings are zeros; the model was trained with T5 dropped out. Prompt weights
    change the prompt_embeds of all text encoders, but not the pooled embeddings.
    """

    name = "stable_diffusion_3"

    def __init__(
        self, components: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
    ) -> None:
        self.transformer = components["transformer"]
        text_encoders = [
            clip_text_encoder(components, suffix, penultimate_layer_and_projection) for suffix in ("", "_2")
        ]
        if "text_encoder_3" in components:
            text_encoders.append(t5_text_encoder(components, "_3", T5_TOKENS))
        super().__init__(self.transformer, components["vae"], text_encoders, _size_limits(components), scheduler_config)
        config = self.transformer.config
        guidance_scale = GUIDANCE_SCALE if config.qk_norm is None else GUIDANCE_SCALE_35
        self.defaults: Mapping[str, Any] = self._default_settings(config.sample_size, STEPS, guidance_scale)

    def encode(self, embeds: Sequence[PromptEmbeds], is_empty: bool) -> dict[str, Tensor]:
        """Returns {encoder_hidden_states [1, T + T5, D], pooled_projections [1, P1 + P2]}."""
        import torch
        import torch.nn.functional as F

        clip_embeds, t5_embeds = embeds[:2], embeds[2:]
        joint_dim = self.transformer.config.joint_attention_dim
        # CLIP: [1, T, D1] and [1, T, D2] -> [1, T, D1 + D2], padded with zeros to [1, T, D]
        clip_states = torch.cat([each.prompt_embeds for each in clip_embeds], dim=-1)
        clip_states_padded = F.pad(clip_states, (0, joint_dim - clip_states.shape[-1]))
        # T5: [1, T5, D]
        t5_states = t5_embeds[0].prompt_embeds if t5_embeds else clip_states.new_zeros(1, T5_TOKENS, joint_dim)
        states = torch.cat([clip_states_padded, t5_states], dim=1)
        pooled = [each.pooled_prompt_embeds for each in clip_embeds if each.pooled_prompt_embeds is not None]
        return {"encoder_hidden_states": states, "pooled_projections": torch.cat(pooled, dim=-1)}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the transformer's output, noise - x0, [B, C, h, w] in float32 for latents [B, C, h, w]."""
        dtype = self.transformer.proj_out.weight.dtype  # `transformer.dtype` is slow: it iterates over all parameters
        inputs = {name: tensor.to(dtype) for name, tensor in conditioning.items()}
        timestep = timestep.expand(len(latents))
        output: Tensor = self.transformer(latents.to(dtype), timestep=timestep, **inputs, return_dict=False)[0]
        return output.float()
