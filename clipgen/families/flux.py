"""Flux 1: a distilled flow-matching transformer conditioned on T5 and on CLIP's pooled text embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipgen.families import shared
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import PromptEmbeds, clip_text_encoder, last_layer, t5_text_encoder
from clipgen.models import Layout, NetworkSpec, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

PATCH = 2  # the transformer's tokens are patches of 2 x 2 latents
SAMPLE_SIZE = 128  # side of the latents that it was trained on; no config has it
DEV, SCHNELL = (28, 3.5, 512), (4, 0.0, 256)  # steps, guidance_scale, T5 tokens
NUM_TRAIN_TIMESTEPS = 1000  # the transformer takes timesteps 0 to 1 and multiplies them by this


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit together, and for transformers with inputs other than a prompt."""
    transformer, config = networks["transformer"], networks["transformer"].config
    shared.check_patches(config, transformer.out_channels, networks["vae"], PATCH)
    text, t5 = networks["text_encoder"].config, networks["text_encoder_2"].config
    shared.check_embed_size("transformer", "pooled_prompt_embeds", config.pooled_projection_dim, text.hidden_size)
    shared.check_embed_size("transformer", "prompt_embeds", config.joint_attention_dim, t5.d_model)
    shared.check_lengths(tokenizers, networks, "tokenizer")
    shared.check_rope(config, 3)


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["vae"]) * PATCH)


LAYOUT = Layout(
    family="flux",
    pipeline_classes=("FluxPipeline",),
    networks={
        "transformer": NetworkSpec((("diffusers", "FluxTransformer2DModel"),)),
        "vae": shared.VAE,
        "text_encoder": shared.CLIP_TEXT,
        "text_encoder_2": shared.T5_TEXT,
        "clip": shared.CLIP,
    },
    tokenizers={"tokenizer": shared.CLIP_TOKENIZER, "tokenizer_2": shared.T5_TOKENIZER},
    schedulers=shared.FLOW_SCHEDULERS,
    unused=shared.UNUSED,
    predictions=("flow",),
    guidance="distilled (dev), none (schnell)",
    check=_check,
    size_limits=_size_limits,
    lora_loader="FluxLoraLoaderMixin",
    prefers_bfloat16=True,
)


class Flux(LatentFamily):
    """The adapter of one loaded model, dev or schnell; see the Family protocol. Black Forest Labs 2024.

    There is one pass per step and no unconditional half, so that a negative prompt has no effect. In dev,
    `guidance_scale` is an input of the transformer, into which guidance was distilled; schnell ignores it. Prompt
    weights change T5's prompt_embeds, but not CLIP's pooled embedding.
    """

    name = "flux"
    distilled = True

    def __init__(
        self, components: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
    ) -> None:
        self.transformer = components["transformer"]
        self.guidance_embeds = bool(self.transformer.config.guidance_embeds)
        steps, guidance_scale, t5_tokens = DEV if self.guidance_embeds else SCHNELL
        text_encoders = [clip_text_encoder(components, "", last_layer), t5_text_encoder(components, "_2", t5_tokens)]
        super().__init__(self.transformer, components["vae"], text_encoders, _size_limits(components), scheduler_config)
        self.defaults: Mapping[str, Any] = self._default_settings(SAMPLE_SIZE, steps, guidance_scale)

    def sigmas(self, steps: int) -> Sequence[float] | None:
        """Returns `steps` evenly spaced noise levels from 1 to 1/steps."""
        return shared.even_sigmas(steps)

    def encode(self, embeds: Sequence[PromptEmbeds], is_empty: bool) -> dict[str, Tensor]:
        """Returns {encoder_hidden_states [1, T, D], pooled_projections [1, P]}."""
        pooled = embeds[0].pooled_prompt_embeds
        assert pooled is not None
        return {"encoder_hidden_states": embeds[1].prompt_embeds, "pooled_projections": pooled}

    def with_guidance_scale(self, conditioning: Mapping[str, Tensor], guidance_scale: float) -> Mapping[str, Tensor]:
        """Returns the conditioning with {guidance [B]} added if the transformer takes it (dev)."""
        if not self.guidance_embeds:
            return conditioning
        pooled = conditioning["pooled_projections"]
        return {**conditioning, "guidance": pooled.new_full(pooled.shape[:1], guidance_scale)}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the transformer's output, noise - x0, [B, C, h, w] in float32 for latents [B, C, h, w]."""
        dtype = self.transformer.proj_out.weight.dtype  # `transformer.dtype` is slow: it iterates over all parameters
        inputs = {name: tensor.to(dtype) for name, tensor in conditioning.items()}
        output: Tensor = self.transformer(
            pack_latents(latents.to(dtype)),  # [B, h/2 * w/2, 4 C]
            timestep=timestep.expand(len(latents)) / NUM_TRAIN_TIMESTEPS,
            img_ids=latent_image_ids(latents),
            txt_ids=latents.new_zeros(inputs["encoder_hidden_states"].shape[1], 3),
            **inputs,
            return_dict=False,
        )[0]
        return unpack_latents(output, *latents.shape[-2:]).float()


def pack_latents(latents: Tensor) -> Tensor:
    """Packs patches of 2 x 2 latents into tokens: [B, C, h, w] -> [B, h/2 * w/2, 4 C]."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)  # [B, C, h/2, 2, w/2, 2]
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH**2)


def unpack_latents(packed: Tensor, height: int, width: int) -> Tensor:
    """Inverts `pack_latents`: [B, h/2 * w/2, 4 C] -> [B, C, h, w]."""
    patches = packed.reshape(len(packed), height // PATCH, width // PATCH, -1, PATCH, PATCH)  # [B, h/2, w/2, C, 2, 2]
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(len(packed), -1, height, width)


def latent_image_ids(latents: Tensor) -> Tensor:
    """Returns the position ids (0, row, column) of packed latents, [h/2 * w/2, 3]."""
    import torch

    height, width = (side // PATCH for side in latents.shape[-2:])
    rows, columns = torch.arange(height, device=latents.device), torch.arange(width, device=latents.device)
    ids = latents.new_zeros(height, width, 3)
    ids[..., 1], ids[..., 2] = rows[:, None], columns
    return ids.reshape(-1, 3)
