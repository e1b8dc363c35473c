"""Stable Diffusion 1 and 2, their fine-tunes, and storybook: a UNet conditioned on one CLIP text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import shared
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import ImageEmbeds, PromptEmbeds, clip_text_encoder, last_layer
from clipgen.models import Layout, SizeLimits
from clipgen.models.load_captioner import HEAD_SPECS

if TYPE_CHECKING:
    from torch import Tensor

# Maps 4 latent channels to approximate RGB, -1 to 1: fitted by Keturn, discuss.huggingface.co/t/23204.
LATENT_RGB = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))
STEPS, GUIDANCE_SCALE = 30, 7.5


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit together, and for UNets with inputs other than a prompt."""
    unet, text = networks["unet"], networks["text_encoder"].config
    shared.check_latents("unet", unet.config.in_channels, unet.config.out_channels, networks["vae"])
    shared.check_inputs(unet, "stable_diffusion")
    shared.check_embed_size("unet", "prompt_embeds", unet.config.cross_attention_dim, text.hidden_size)
    shared.check_lengths(tokenizers, networks, "tokenizer")
    if "coca" in networks:
        _check_coca(networks)


def _check_coca(networks: Mapping[str, Any]) -> None:
    """Raises ModelError for a CoCa without a CLIP, or with one that it does not fit."""
    if "clip" not in networks:
        raise ModelError("coca needs a clip folder, and the model has none.")
    coca, clip = networks["coca"].config, networks["clip"].config
    if coca.states != clip.vision_config.hidden_size:
        raise ModelError(
            f"coca expects patch states of size {coca.states}, its CLIP gives {clip.vision_config.hidden_size}."
        )
    if coca.decoder.vocab_size != clip.text_config.vocab_size:
        raise ModelError(
            f"coca has a vocabulary of {coca.decoder.vocab_size} tokens, its CLIP of {clip.text_config.vocab_size}."
        )


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["vae"]))


LAYOUT = Layout(
    family="stable_diffusion",
    pipeline_classes=("StableDiffusionPipeline",),
    networks={
        "unet": shared.UNET,
        "vae": shared.VAE,
        "text_encoder": shared.CLIP_TEXT,
        "clip": shared.CLIP,
        "latent_head": shared.LATENT_HEAD,
        "coca": HEAD_SPECS["coca"],
    },
    tokenizers={"tokenizer": shared.CLIP_TOKENIZER},
    schedulers=shared.DIFFUSION_SCHEDULERS,
    unused={"safety_checker": (("stable_diffusion", "StableDiffusionSafetyChecker"),), **shared.UNUSED},
    predictions=shared.DIFFUSION_PREDICTIONS,
    guidance="classifier-free",
    check=_check,
    size_limits=_size_limits,
    image_networks=("clip", "coca"),
    clip_text=True,
    lora_loader="StableDiffusionLoraLoaderMixin",
)


class StableDiffusion(LatentFamily):
    """The adapter of one loaded model; see the Family protocol. Rombach et al. 2022 (arXiv 2112.10752)."""

    name = "stable_diffusion"

    def __init__(
        self, components: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
    ) -> None:
        import torch

        from clipgen.clip.latent_head import LatentHead

        self.unet, self.text_encoder = components["unet"], components["text_encoder"]
        text_encoders = [clip_text_encoder(components, "", last_layer)]
        super().__init__(self.unet, components["vae"], text_encoders, _size_limits(components), scheduler_config)
        sample_size = self.unet.config.sample_size
        self.defaults: Mapping[str, Any] = self._default_settings(sample_size, STEPS, GUIDANCE_SCALE)
        if self.unet.config.in_channels == len(LATENT_RGB):
            self.latent_rgb = torch.tensor(LATENT_RGB)
        if "latent_head" in components:
            self.latent_head = LatentHead(components["latent_head"])
        if "coca" in components:
            self.coca, self.clip_encoder = components["coca"], components["clip_encoder"]
            self.encode_image = self._encode_caption

    def encode(self, embeds: Sequence[PromptEmbeds], is_empty: bool) -> dict[str, Tensor]:
        """Returns {encoder_hidden_states [1, T, D]}."""
        return {"encoder_hidden_states": embeds[0].prompt_embeds}

    def with_image(
        self, conditioning: Mapping[str, Tensor], image_embeds: Tensor | None, weight: float, seed: int
    ) -> Mapping[str, Tensor]:
        """Returns the conditioning with the prompt's hidden states interpolated towards those of the caption."""
        if image_embeds is None:
            return conditioning
        states = conditioning["encoder_hidden_states"]
        windows = states.shape[1] // image_embeds.shape[1]  # the caption joins each window of a long prompt
        caption_states = image_embeds.to(states).repeat(1, windows, 1)
        return {**conditioning, "encoder_hidden_states": states.lerp(caption_states, weight)}

    def _encode_caption(self, pixels: Tensor) -> ImageEmbeds:
        """Returns the hidden states [1, T, D] of the caption that CoCa writes for an image [1, 3, H, W] in [0, 1].

        unCLIP (Ramesh et al. 2022, arXiv 2204.06125) conditions its decoder on the CLIP vector itself. This UNet was
        trained on prompts alone, so that it gets the most likely prompt of the image. train/LOG.md has measurements.
        """
        tokenizer = self.text_encoders[0].tokenizer
        captions = self.coca.caption(self.coca.encode_images(self.clip_encoder, pixels), tokenizer)
        input_ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        embeds = last_layer(self.text_encoder, input_ids.to(self.text_encoder.device))
        return ImageEmbeds(embeds.prompt_embeds, captions[0])

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the UNet's output [B, C, h, w] in float32, for latents [B, C, h, w] scaled by the scheduler."""
        dtype = self.unet.conv_in.weight.dtype  # `unet.dtype` is slow: it iterates over all parameters
        inputs = {name: tensor.to(dtype) for name, tensor in conditioning.items()}
        output: Tensor = self.unet(latents.to(dtype), timestep, **inputs, return_dict=False)[0]
        return output.float()
