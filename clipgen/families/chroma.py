"""Chroma: Flux 1 without CLIP and without distilled guidance, conditioned on T5 alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from clipgen.families import shared
from clipgen.families.flux import (
    NUM_TRAIN_TIMESTEPS,
    PATCH,
    SAMPLE_SIZE,
    latent_image_ids,
    pack_latents,
    unpack_latents,
)
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import PromptEmbeds, TextEncoder, t5_layer_masked
from clipgen.models import Layout, NetworkSpec, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

STEPS, GUIDANCE_SCALE = 40, 3.0  # from the model card of Chroma1-HD
T5_TOKENS = 512


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit together, and for transformers with inputs other than a prompt."""
    transformer, config = networks["transformer"], networks["transformer"].config
    shared.check_patches(config, transformer.out_channels, networks["vae"], PATCH)
    t5 = networks["text_encoder"].config
    shared.check_embed_size("transformer", "prompt_embeds", config.joint_attention_dim, t5.d_model)
    shared.check_rope(config, 3)


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["vae"]) * PATCH)


LAYOUT = Layout(
    family="chroma",
    pipeline_classes=("ChromaPipeline",),
    networks={
        "transformer": NetworkSpec((("diffusers", "ChromaTransformer2DModel"),), computes_buffers=True),
        "vae": shared.VAE,
        "text_encoder": shared.T5_TEXT,
    },
    tokenizers={"tokenizer": shared.T5_TOKENIZER},
    schedulers=shared.FLOW_SCHEDULERS,
    unused=shared.UNUSED,
    predictions=("flow",),
    guidance="classifier-free",
    check=_check,
    size_limits=_size_limits,
    prefers_bfloat16=True,
)


class Chroma(LatentFamily):
    """The adapter of one loaded model; see the Family protocol. Lodestone Rock 2025, trained from Flux 1 schnell."""

    name = "chroma"

    def __init__(
        self, components: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
    ) -> None:
        self.transformer, tokenizer = components["transformer"], components["tokenizer"]
        embed = partial(t5_layer_masked, tokenizer.pad_token_id)
        max_length = min(T5_TOKENS, tokenizer.model_max_length)
        text_encoders = [TextEncoder(tokenizer, components["text_encoder"], max_length, embed)]
        super().__init__(self.transformer, components["vae"], text_encoders, _size_limits(components), scheduler_config)
        self.defaults: Mapping[str, Any] = self._default_settings(SAMPLE_SIZE, STEPS, GUIDANCE_SCALE)

    def sigmas(self, steps: int) -> Sequence[float] | None:
        """Returns `steps` evenly spaced noise levels from 1 to 1/steps."""
        return shared.even_sigmas(steps)

    def encode(self, embeds: Sequence[PromptEmbeds], is_empty: bool) -> dict[str, Tensor]:
        """Returns {encoder_hidden_states [1, T, D], attention_mask [1, T]}.

        The transformer was trained to attend to the prompt and to the first token of the padding after it.
        """
        import torch

        mask = embeds[0].attention_mask
        assert mask is not None
        attended = torch.arange(mask.shape[1], device=mask.device) <= mask.sum(dim=1, keepdim=True)
        return {"encoder_hidden_states": embeds[0].prompt_embeds, "attention_mask": attended.to(mask)}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the transformer's output, noise - x0, [B, C, h, w] in float32 for latents [B, C, h, w]."""
        import torch

        dtype = self.transformer.proj_out.weight.dtype  # `transformer.dtype` is slow: it iterates over all parameters
        packed = pack_latents(latents.to(dtype))  # [B, h/2 * w/2, 4 C]
        prompt_mask = conditioning["attention_mask"].to(dtype)  # [B, T]
        output: Tensor = self.transformer(
            packed,
            timestep=timestep.expand(len(latents)) / NUM_TRAIN_TIMESTEPS,
            encoder_hidden_states=conditioning["encoder_hidden_states"].to(dtype),
            img_ids=latent_image_ids(latents),
            txt_ids=latents.new_zeros(prompt_mask.shape[1], 3),
            attention_mask=torch.cat([prompt_mask, prompt_mask.new_ones(packed.shape[:2])], dim=1),
            return_dict=False,
        )[0]
        return unpack_latents(output, *latents.shape[-2:]).float()
