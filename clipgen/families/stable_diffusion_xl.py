"""Stable Diffusion XL and its fine-tunes: a UNet told by two CLIP text encoders, a summary and the picture's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import components
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import (
    PromptEmbeds,
    clip_text_encoder,
    layer_before_last,
    layer_before_last_and_projection,
)
from clipgen.models import Layout, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

# Rough colours, -1 to 1, of its 4 latent channels, without their offset: fitted by Timothy Alexis Vass,
# huggingface.co/blog/TimothyAlexisVass/explaining-the-sdxl-latent-space, where they are of 0 to 255.
LATENT_RGB = ((0.471, 0.471, 0.471), (-0.471, -0.039, 0.078), (0.196, 0.118, -0.039), (-0.549, -0.392, -0.275))
STEPS, GUIDANCE_SCALE = 30, 5.0
TIME_IDS = 6  # original height and width, top and left of the crop, height and width wanted
ZEROS = "force_zeros_for_empty_prompt"


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit one another, and for UNets that want more than a prompt."""
    unet, vae = networks["unet"], networks["vae"]
    one, two = networks["text_encoder"].config, networks["text_encoder_2"].config
    components.check_latents("unet", unet.config.in_channels, unet.config.out_channels, vae)
    components.check_inputs(unet, "stable_diffusion_xl", known=("addition_embed_type",))
    if unet.config.addition_embed_type != "text_time":
        raise ModelError(
            f"unet/config.json: addition_embed_type must be text_time, got '{unet.config.addition_embed_type}'."
        )
    components.check_width("unet reads embeddings", unet.config.cross_attention_dim, one.hidden_size + two.hidden_size)
    sizes = TIME_IDS * (unet.config.addition_time_embed_dim or 0)
    summary = unet.config.projection_class_embeddings_input_dim - sizes
    components.check_width("unet reads a summary", summary, two.projection_dim)
    components.check_lengths(tokenizers, networks, "tokenizer", "tokenizer_2")
    if type(vae).__name__ == "AutoencoderKL" and vae.config.latents_mean is not None:
        raise ModelError("vae/config.json: latents_mean is set; clipgen's stable_diffusion_xl family has no such step.")


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["vae"]))


LAYOUT = Layout(
    family="stable_diffusion_xl",
    pipeline_classes=("StableDiffusionXLPipeline",),
    networks={
        "unet": components.UNET,
        "vae": components.VAE,
        "text_encoder": components.CLIP_TEXT,
        "text_encoder_2": components.CLIP_TEXT_PROJECTED,
        "clip": components.CLIP,
    },
    tokenizers={"tokenizer": components.CLIP_TOKENIZER, "tokenizer_2": components.CLIP_TOKENIZER},
    schedulers=components.DIFFUSION,
    unused=components.UNUSED,
    predictions=components.NO_FLOW,
    guidance="classifier-free",
    check=_check,
    size_limits=_size_limits,
)


class StableDiffusionXL(LatentFamily):
    """Adapter of one loaded model; see the Family protocol. Podell et al. 2023 (arXiv 2307.01952).

    Prompt weights act on the token embeddings of both encoders, never on the summary.
    """

    name = "stable_diffusion_xl"

    def __init__(self, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        import torch

        self.unet = parts["unet"]
        readers = (("", layer_before_last), ("_2", layer_before_last_and_projection))
        text_encoders = [clip_text_encoder(parts, number, read) for number, read in readers]
        super().__init__(self.unet, parts["vae"], text_encoders, _size_limits(parts), scheduler_config)
        self.zeros_if_blank = bool(index.get(ZEROS, True))
        self.defaults: Mapping[str, Any] = self._own_defaults(self.unet.config.sample_size, STEPS, GUIDANCE_SCALE)
        self.latent_rgb = torch.tensor(LATENT_RGB)

    def encode(self, embedded: Sequence[PromptEmbeds], blank: bool) -> dict[str, Tensor]:
        """Returns {encoder_hidden_states [1, T, D + D2], text_embeds [1, P]}: zeros if blank, where trained so."""
        import torch

        pooled = embedded[1].pooled_prompt_embeds
        assert pooled is not None
        told = {
            "encoder_hidden_states": torch.cat([each.prompt_embeds for each in embedded], dim=-1),
            "text_embeds": pooled,
        }
        zeros = blank and self.zeros_if_blank
        return {name: torch.zeros_like(tensor) for name, tensor in told.items()} if zeros else told

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the UNet's output [B, C, h, w] in float32 for scaled latents [B, C, h, w], told their size."""
        dtype = self.unet.conv_in.weight.dtype  # the property `unet.dtype` walks through every tensor
        height, width = (side * self.vae_scale_factor for side in latents.shape[-2:])
        sizes = latents.new_tensor([[height, width, 0, 0, height, width]]).expand(len(latents), TIME_IDS)
        told = {name: tensor.to(dtype) for name, tensor in conditioning.items()}
        output: Tensor = self.unet(
            latents.to(dtype),
            timestep,
            told["encoder_hidden_states"],
            added_cond_kwargs={"text_embeds": told["text_embeds"], "time_ids": sizes},
            return_dict=False,
        )[0]
        return output.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32; a VAE that overflows in float16 and says so is put into float32."""
        import torch

        if self.vae.dtype == torch.float16 and self.vae.config.force_upcast:
            self.decoder_to_float32()
        return super().decode(latents)
