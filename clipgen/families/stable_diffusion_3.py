"""Stable Diffusion 3 and 3.5: a transformer trained by flow matching, told by two CLIP text encoders and T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import components
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import (
    PromptEmbeds,
    clip_text_encoder,
    layer_before_last_and_projection,
    t5_text_encoder,
)
from clipgen.models import Layout, NetworkSpec, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 28
GUIDANCE_SCALE, GUIDANCE_SCALE_35 = 7.0, 4.5  # as the model cards of 3 and of 3.5 have them
T5_TOKENS = 256


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit one another, and for transformers that want more than a prompt."""
    config = networks["transformer"].config
    one, two = networks["text_encoder"].config, networks["text_encoder_2"].config
    components.check_latents("transformer", config.in_channels, networks["transformer"].out_channels, networks["vae"])
    summary = one.projection_dim + two.projection_dim
    components.check_width("transformer reads a summary", config.pooled_projection_dim, summary)
    components.check_lengths(tokenizers, networks, "tokenizer", "tokenizer_2")
    if "text_encoder_3" in networks:
        width = networks["text_encoder_3"].config.d_model
        components.check_width("transformer reads embeddings", config.joint_attention_dim, width)
    if one.hidden_size + two.hidden_size > config.joint_attention_dim:
        raise ModelError("transformer/config.json: joint_attention_dim has no room for both CLIP text encoders.")
    if config.caption_projection_dim != config.num_attention_heads * config.attention_head_dim:
        raise ModelError("transformer/config.json: caption_projection_dim is not the width of its layers.")


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    config = networks["transformer"].config
    unit = vae_scale_factor(networks["vae"]) * config.patch_size
    return SizeLimits(unit, max_size=unit * config.pos_embed_max_size)


LAYOUT = Layout(
    family="stable_diffusion_3",
    pipeline_classes=("StableDiffusion3Pipeline",),
    networks={
        "transformer": NetworkSpec((("diffusers", "SD3Transformer2DModel"),)),
        "vae": components.VAE,
        "text_encoder": components.CLIP_TEXT_PROJECTED,
        "text_encoder_2": components.CLIP_TEXT_PROJECTED,
        "text_encoder_3": replace(components.T5_TEXT, required=False),
        "clip": components.CLIP,
    },
    tokenizers={
        "tokenizer": components.CLIP_TOKENIZER,
        "tokenizer_2": components.CLIP_TOKENIZER,
        "tokenizer_3": components.T5_TOKENIZER,
    },
    schedulers=components.FLOWS,
    unused=components.UNUSED,
    predictions=("flow",),
    guidance="classifier-free",
    check=_check,
    size_limits=_size_limits,
)


class StableDiffusion3(LatentFamily):
    """Adapter of one loaded model; see the Family protocol. Esser et al. 2024 (arXiv 2403.03206).

    Without T5 (text_encoder_3) its tokens are zeros, as the model was trained to bear. Prompt weights act on the token
    embeddings of all three encoders, T5's like CLIP's: scaled, then shifted back to their mean; never on the summary.
    """

    name = "stable_diffusion_3"

    def __init__(self, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        self.transformer = parts["transformer"]
        text_encoders = [clip_text_encoder(parts, number, layer_before_last_and_projection) for number in ("", "_2")]
        if "text_encoder_3" in parts:
            text_encoders.append(t5_text_encoder(parts, "_3", T5_TOKENS))
        super().__init__(self.transformer, parts["vae"], text_encoders, _size_limits(parts), scheduler_config)
        config = self.transformer.config
        guidance_scale = GUIDANCE_SCALE if config.qk_norm is None else GUIDANCE_SCALE_35
        self.defaults: Mapping[str, Any] = self._own_defaults(config.sample_size, STEPS, guidance_scale)

    def encode(self, embedded: Sequence[PromptEmbeds], blank: bool) -> dict[str, Tensor]:
        """Returns {encoder_hidden_states [1, T + T5, D], pooled_projections [1, P]}, CLIP's tokens padded to T5's D."""
        import torch
        import torch.nn.functional as F

        clips, t5 = embedded[:2], embedded[2:]
        both = torch.cat([each.prompt_embeds for each in clips], dim=-1)  # [1, T, D1 + D2]
        width = self.transformer.config.joint_attention_dim
        rest = t5[0].prompt_embeds if t5 else both.new_zeros(1, T5_TOKENS, width)
        told = torch.cat([F.pad(both, (0, width - both.shape[-1])), rest], dim=1)
        pooled = torch.cat(
            [each.pooled_prompt_embeds for each in clips if each.pooled_prompt_embeds is not None], dim=-1
        )
        return {"encoder_hidden_states": told, "pooled_projections": pooled}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the transformer's output, noise - x0, [B, C, h, w] in float32 for latents [B, C, h, w]."""
        dtype = self.transformer.proj_out.weight.dtype  # the property `transformer.dtype` walks through every tensor
        told = {name: tensor.to(dtype) for name, tensor in conditioning.items()}
        times = timestep.expand(len(latents))
        output: Tensor = self.transformer(latents.to(dtype), timestep=times, **told, return_dict=False)[0]
        return output.float()
