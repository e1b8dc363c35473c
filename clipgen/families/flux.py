"""Flux 1: a transformer trained by flow matching and distilled, told by T5 and by CLIP's summary of the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import components
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import PromptEmbeds, clip_text_encoder, last_layer, t5_text_encoder
from clipgen.models import Layout, NetworkSpec, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

PATCH = 2  # latents a side that make one place of the transformer
SIDE = 128  # latents a side, without a word of it in any config
DEV, SCHNELL = (28, 3.5, 512), (4, 0.0, 256)  # steps, guidance_scale, tokens of T5
TRAINED_TIMESTEPS = 1000  # the transformer multiplies its timestep, 0 to 1, by this


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit one another, and for transformers that want more than a prompt."""
    transformer, config = networks["transformer"], networks["transformer"].config
    if config.in_channels % PATCH**2 or config.patch_size != 1:
        raise ModelError(f"transformer takes {config.in_channels} channels, which are no {PATCH} x {PATCH} latents.")
    takes, gives = (channels // PATCH**2 for channels in (config.in_channels, transformer.out_channels))
    components.check_latents("transformer", takes, gives, networks["vae"])
    text, t5 = networks["text_encoder"].config, networks["text_encoder_2"].config
    components.check_width("transformer reads a summary", config.pooled_projection_dim, text.hidden_size)
    components.check_width("transformer reads embeddings", config.joint_attention_dim, t5.d_model)
    components.check_lengths(tokenizers, networks, "tokenizer")
    if len(config.axes_dims_rope) != 3 or sum(config.axes_dims_rope) != config.attention_head_dim:
        raise ModelError("transformer/config.json: axes_dims_rope must be 3 numbers that sum to attention_head_dim.")


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["vae"]) * PATCH)


LAYOUT = Layout(
    family="flux",
    pipeline_classes=("FluxPipeline",),
    networks={
        "transformer": NetworkSpec((("diffusers", "FluxTransformer2DModel"),)),
        "vae": components.VAE,
        "text_encoder": components.CLIP_TEXT,
        "text_encoder_2": components.T5_TEXT,
        "clip": components.CLIP,
    },
    tokenizers={"tokenizer": components.CLIP_TOKENIZER, "tokenizer_2": components.T5_TOKENIZER},
    schedulers=components.FLOWS,
    unused=components.UNUSED,
    predictions=("flow",),
    guidance="distilled (dev), none (schnell)",
    check=_check,
    size_limits=_size_limits,
)


class Flux(LatentFamily):
    """Adapter of one loaded model, dev or schnell; see the Family protocol. Black Forest Labs 2024.

    One pass a step: there is no unconditional half, so a negative prompt says nothing. In dev `guidance_scale` is the
    scale that was distilled into the network, which takes it as an input; schnell has no such input and ignores it.
    Prompt weights act on T5's tokens: scaled, then shifted back to their mean; CLIP's summary knows none.
    """

    name = "flux"
    distilled = True

    def __init__(self, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        self.transformer = parts["transformer"]
        self.takes_scale = bool(self.transformer.config.guidance_embeds)
        steps, guidance_scale, length = DEV if self.takes_scale else SCHNELL
        text_encoders = [clip_text_encoder(parts, "", last_layer), t5_text_encoder(parts, "_2", length)]
        super().__init__(self.transformer, parts["vae"], text_encoders, _size_limits(parts), scheduler_config)
        self.defaults: Mapping[str, Any] = self._own_defaults(SIDE, steps, guidance_scale)

    def sigmas(self, steps: int) -> Sequence[float] | None:
        """Returns 1 to 1/steps, evenly spaced: pure noise first, a step from none last."""
        return [(steps - step) / steps for step in range(steps)]

    def encode(self, embedded: Sequence[PromptEmbeds], blank: bool) -> dict[str, Tensor]:
        """Returns {encoder_hidden_states [1, T, D], pooled_projections [1, P]}."""
        pooled = embedded[0].pooled_prompt_embeds
        assert pooled is not None
        return {"encoder_hidden_states": embedded[1].prompt_embeds, "pooled_projections": pooled}

    def with_guidance_scale(self, conditioning: Mapping[str, Tensor], guidance_scale: float) -> Mapping[str, Tensor]:
        """Returns the conditioning with {guidance [B]} in it, if the network takes it."""
        if not self.takes_scale:
            return conditioning
        pooled = conditioning["pooled_projections"]
        return {**conditioning, "guidance": pooled.new_full(pooled.shape[:1], guidance_scale)}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the transformer's output, noise - x0, [B, C, h, w] in float32 for latents [B, C, h, w]."""
        dtype = self.transformer.proj_out.weight.dtype  # the property `transformer.dtype` walks through every tensor
        told = {name: tensor.to(dtype) for name, tensor in conditioning.items()}
        output: Tensor = self.transformer(
            pack(latents.to(dtype)),
            timestep=timestep.expand(len(latents)) / TRAINED_TIMESTEPS,
            img_ids=places(latents),
            txt_ids=latents.new_zeros(told["encoder_hidden_states"].shape[1], 3),
            **told,
            return_dict=False,
        )[0]
        return unpack(output, *latents.shape[-2:]).float()


def pack(latents: Tensor) -> Tensor:
    """Makes 2 x 2 latents one place: [B, C, h, w] -> [B, h/2 * w/2, 4 C]."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH**2)


def unpack(packed: Tensor, height: int, width: int) -> Tensor:
    """Undoes `pack`: [B, h/2 * w/2, 4 C] -> [B, C, h, w]."""
    patches = packed.reshape(len(packed), height // PATCH, width // PATCH, -1, PATCH, PATCH)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(len(packed), -1, height, width)


def places(latents: Tensor) -> Tensor:
    """Returns the (0, row, column) of each place of packed latents, [h/2 * w/2, 3]."""
    import torch

    height, width = (side // PATCH for side in latents.shape[-2:])
    rows, columns = torch.arange(height, device=latents.device), torch.arange(width, device=latents.device)
    ids = latents.new_zeros(height, width, 3)
    ids[..., 1], ids[..., 2] = rows[:, None], columns
    return ids.reshape(-1, 3)
