"""Stable Diffusion 1 and 2, their fine-tunes, and storybook: a UNet on VAE latents, told by one CLIP text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import components
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import ImageEmbeds, PromptEmbeds, clip_text_encoder, last_layer
from clipgen.models import Layout, SizeLimits
from clipgen.models.load_captioner import HEAD_SPECS

if TYPE_CHECKING:
    from torch import Tensor

# Rough colours, -1 to 1, of Stable Diffusion's 4 latent channels: fitted by Keturn, discuss.huggingface.co/t/23204.
LATENT_RGB = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))
STEPS, GUIDANCE_SCALE = 30, 7.5


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit one another, and for UNets that want more than a prompt."""
    unet, text = networks["unet"], networks["text_encoder"].config
    components.check_latents("unet", unet.config.in_channels, unet.config.out_channels, networks["vae"])
    components.check_inputs(unet, "stable_diffusion")
    components.check_width("unet reads embeddings", unet.config.cross_attention_dim, text.hidden_size)
    components.check_lengths(tokenizers, networks, "tokenizer")
    if "coca" in networks:
        _check_coca(networks)


def _check_coca(networks: Mapping[str, Any]) -> None:
    """Raises ModelError for a CoCa that does not fit the CLIP beside it, or has none."""
    if "clip" not in networks:
        raise ModelError("coca writes of what a CLIP sees, and the model brings none.")
    coca, clip = networks["coca"].config, networks["clip"].config
    if coca.states != clip.vision_config.hidden_size:
        raise ModelError(
            f"coca reads patches of {coca.states} numbers, its CLIP gives {clip.vision_config.hidden_size}."
        )
    if coca.decoder.vocab_size != clip.text_config.vocab_size:
        raise ModelError(
            f"coca writes {coca.decoder.vocab_size} different tokens, its CLIP reads {clip.text_config.vocab_size}."
        )


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["vae"]))


LAYOUT = Layout(
    family="stable_diffusion",
    pipeline_classes=("StableDiffusionPipeline",),
    networks={
        "unet": components.UNET,
        "vae": components.VAE,
        "text_encoder": components.CLIP_TEXT,
        "clip": components.CLIP,
        "latent_head": components.LATENT_HEAD,
        "coca": HEAD_SPECS["coca"],
    },
    tokenizers={"tokenizer": components.CLIP_TOKENIZER},
    schedulers=components.DIFFUSION,
    unused={"safety_checker": (("stable_diffusion", "StableDiffusionSafetyChecker"),), **components.UNUSED},
    predictions=components.NO_FLOW,
    guidance="classifier-free",
    check=_check,
    size_limits=_size_limits,
    image_networks=("clip", "coca"),
)


class StableDiffusion(LatentFamily):
    """Adapter of one loaded model; see the Family protocol. Rombach et al. 2022 (arXiv 2112.10752)."""

    name = "stable_diffusion"

    def __init__(self, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        import torch

        from clipgen.clip.latent_head import LatentHead

        self.unet, self.text_encoder = parts["unet"], parts["text_encoder"]
        text_encoders = [clip_text_encoder(parts, "", last_layer)]
        super().__init__(self.unet, parts["vae"], text_encoders, _size_limits(parts), scheduler_config)
        self.defaults: Mapping[str, Any] = self._own_defaults(self.unet.config.sample_size, STEPS, GUIDANCE_SCALE)
        if self.unet.config.in_channels == len(LATENT_RGB):
            self.latent_rgb = torch.tensor(LATENT_RGB)
        if "latent_head" in parts:
            self.latent_head = LatentHead(parts["latent_head"])
        if "coca" in parts:
            self.coca, self.encoder, self.encode_image = parts["coca"], parts["encoder"], self._read

    def encode(self, embedded: Sequence[PromptEmbeds], blank: bool) -> dict[str, Tensor]:
        """Returns {encoder_hidden_states [1, T, D]}."""
        return {"encoder_hidden_states": embedded[0].prompt_embeds}

    def with_image(
        self, conditioning: Mapping[str, Tensor], seen: Tensor | None, weight: float, seed: int
    ) -> Mapping[str, Tensor]:
        """Returns the prompt's text states moved towards those of the picture: all the way at a weight of 1."""
        if seen is None:
            return conditioning
        told = conditioning["encoder_hidden_states"]
        return {**conditioning, "encoder_hidden_states": told.lerp(seen.to(told), weight)}

    def _read(self, pixels: Tensor) -> ImageEmbeds:
        """Returns the text states [1, T, D] of the caption that CoCa writes of a picture [1, 3, H, W] in [0, 1].

        unCLIP (Ramesh et al. 2022, arXiv 2204.06125) tells its decoder CLIP's vector itself. A denoiser that was
        trained on prompts alone is told the likeliest prompt instead. What comes of that is measured in train/LOG.md.
        """
        words = self.text_encoders[0].tokenizer
        said = self.coca.caption(self.coca.encode_images(self.encoder, pixels), words)
        ids = words(said, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return ImageEmbeds(last_layer(self.text_encoder, ids.to(self.text_encoder.device)).prompt_embeds, said[0])

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the UNet's output [B, C, h, w] in float32 for scaled latents [B, C, h, w]."""
        dtype = self.unet.conv_in.weight.dtype  # the property `unet.dtype` walks through every tensor
        told = {name: tensor.to(dtype) for name, tensor in conditioning.items()}
        output: Tensor = self.unet(latents.to(dtype), timestep, **told, return_dict=False)[0]
        return output.float()
