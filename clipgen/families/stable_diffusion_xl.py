"""Stable Diffusion XL and its fine-tunes: a UNet conditioned on two CLIP text encoders, pooled embeddings and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import shared
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import (
    PromptEmbeds,
    clip_text_encoder,
    penultimate_layer,
    penultimate_layer_and_projection,
)
from clipgen.models import Layout, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

# Maps 4 latent channels to approximate RGB, -1 to 1, without the offset: fitted by Timothy Alexis Vass,
# huggingface.co/blog/TimothyAlexisVass/explaining-the-sdxl-latent-space (for 0 to 255 there).
LATENT_RGB = ((0.471, 0.471, 0.471), (-0.471, -0.039, 0.078), (0.196, 0.118, -0.039), (-0.549, -0.392, -0.275))
STEPS, GUIDANCE_SCALE = 30, 5.0
TIME_IDS = 6  # original height and width, crop top and left, target height and width
ZEROS_FOR_EMPTY_PROMPT = "force_zeros_for_empty_prompt"


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit together, and for UNets with inputs other than a prompt."""
    unet, vae = networks["unet"], networks["vae"]
    text, text_2 = networks["text_encoder"].config, networks["text_encoder_2"].config
    shared.check_latents("unet", unet.config.in_channels, unet.config.out_channels, vae)
    shared.check_inputs(unet, "stable_diffusion_xl", allowed=("addition_embed_type",))
    if unet.config.addition_embed_type != "text_time":
        raise ModelError(
            f"unet/config.json: addition_embed_type must be text_time, got '{unet.config.addition_embed_type}'."
        )
    hidden_size = text.hidden_size + text_2.hidden_size
    shared.check_embed_size("unet", "prompt_embeds", unet.config.cross_attention_dim, hidden_size)
    time_size = TIME_IDS * (unet.config.addition_time_embed_dim or 0)
    pooled_size = unet.config.projection_class_embeddings_input_dim - time_size
    shared.check_embed_size("unet", "pooled_prompt_embeds", pooled_size, text_2.projection_dim)
    shared.check_lengths(tokenizers, networks, "tokenizer", "tokenizer_2")
    if type(vae).__name__ == "AutoencoderKL" and vae.config.latents_mean is not None:
        raise ModelError(
            "vae/config.json: latents_mean is set; clipgen's stable_diffusion_xl family does not support it."
        )


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["vae"]))


LAYOUT = Layout(
    family="stable_diffusion_xl",
    pipeline_classes=("StableDiffusionXLPipeline",),
    networks={
        "unet": shared.UNET,
        "vae": shared.VAE,
        "text_encoder": shared.CLIP_TEXT,
        "text_encoder_2": shared.CLIP_TEXT_PROJECTED,
        "clip": shared.CLIP,
    },
    tokenizers={"tokenizer": shared.CLIP_TOKENIZER, "tokenizer_2": shared.CLIP_TOKENIZER},
    schedulers=shared.DIFFUSION_SCHEDULERS,
    unused=shared.UNUSED,
    predictions=shared.DIFFUSION_PREDICTIONS,
    guidance="classifier-free",
    check=_check,
    size_limits=_size_limits,
    clip_text=True,
    lora_loader="StableDiffusionXLLoraLoaderMixin",
)


class StableDiffusionXL(LatentFamily):
    """The adapter of one loaded model; see the Family protocol. Podell et al. 2023 (arXiv 2307.01952).

    Prompt weights change the prompt_embeds of both text encoders, but not the pooled embeddings.
    """

    name = "stable_diffusion_xl"

    def __init__(
        self, components: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
    ) -> None:
        import torch

        self.unet = components["unet"]
        text_encoders = [
            clip_text_encoder(components, "", penultimate_layer),
            clip_text_encoder(components, "_2", penultimate_layer_and_projection),
        ]
        super().__init__(self.unet, components["vae"], text_encoders, _size_limits(components), scheduler_config)
        self.zeros_for_empty_prompt = bool(index.get(ZEROS_FOR_EMPTY_PROMPT, True))
        sample_size = self.unet.config.sample_size
        self.defaults: Mapping[str, Any] = self._default_settings(sample_size, STEPS, GUIDANCE_SCALE)
        self.latent_rgb = torch.tensor(LATENT_RGB)

    def encode(self, embeds: Sequence[PromptEmbeds], is_empty: bool) -> dict[str, Tensor]:
        """Returns {encoder_hidden_states [1, T, D1 + D2], text_embeds [1, P]}.

        An empty prompt gives zeros if the model was trained so (force_zeros_for_empty_prompt).
        """
        import torch

        pooled = embeds[1].pooled_prompt_embeds
        assert pooled is not None
        states = torch.cat([each.prompt_embeds for each in embeds], dim=-1)
        if is_empty and self.zeros_for_empty_prompt:
            states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        return {"encoder_hidden_states": states, "text_embeds": pooled}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the UNet's output [B, C, h, w] in float32, for latents [B, C, h, w] scaled by the scheduler."""
        dtype = self.unet.conv_in.weight.dtype  # `unet.dtype` is slow: it iterates over all parameters
        height, width = (side * self.vae_scale_factor for side in latents.shape[-2:])
        time_ids = latents.new_tensor([[height, width, 0, 0, height, width]]).expand(len(latents), TIME_IDS)
        inputs = {name: tensor.to(dtype) for name, tensor in conditioning.items()}
        output: Tensor = self.unet(
            latents.to(dtype),
            timestep,
            inputs["encoder_hidden_states"],
            added_cond_kwargs={"text_embeds": inputs["text_embeds"], "time_ids": time_ids},
            return_dict=False,
        )[0]
        return output.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32; a VAE with force_upcast overflows in float16 and runs in float32."""
        import torch

        if self.vae.dtype == torch.float16 and self.vae.config.force_upcast:
            self.decoder_to_float32()
        return super().decode(latents)
