"""Stable Diffusion 1 and 2, their fine-tunes, and storybook: a UNet on VAE latents, told by one CLIP text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import folder
from clipgen.families.latents import OnLatents, factor_of
from clipgen.families.towers import Embedded, clip_tower, last_layer
from clipgen.models import Layout, Sides

if TYPE_CHECKING:
    from torch import Tensor

# Rough colours, -1 to 1, of Stable Diffusion's 4 latent channels: fitted by Keturn, discuss.huggingface.co/t/23204.
LATENT_RGB = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))
STEPS, GUIDANCE_SCALE = 30, 7.5


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit one another, and for UNets that want more than a prompt."""
    unet, text = networks["unet"], networks["text_encoder"].config
    folder.check_latents("unet", unet.config.in_channels, unet.config.out_channels, networks["vae"])
    folder.check_inputs(unet, "stable_diffusion")
    folder.check_width("unet reads embeddings", unet.config.cross_attention_dim, text.hidden_size)
    folder.check_lengths(tokenizers, networks, "tokenizer")
    if "image_prior" in networks:
        _check_projection(networks, tokenizers["tokenizer"]["model_max_length"])


def _check_projection(networks: Mapping[str, Any], tokens: int) -> None:
    """Raises ModelError for an image prior that gives other tokens than the text encoder reads, or has no CLIP."""
    given, text = networks["image_prior"].config, networks["text_encoder"].config
    if "clip" not in networks:
        raise ModelError("image_prior reads what a CLIP sees, and the model brings none.")
    folder.check_width("image_prior reads vectors", given.features, networks["clip"].config.projection_dim)
    if (given.tokens, given.vocabulary) != (tokens, text.vocab_size):
        raise ModelError(
            f"image_prior gives {given.tokens} of {given.vocabulary} tokens, the text encoder reads {tokens} of "
            f"{text.vocab_size}."
        )


def _sides(networks: Mapping[str, Any]) -> Sides:
    return Sides(factor_of(networks["vae"]))


LAYOUT = Layout(
    family="stable_diffusion",
    pipeline_classes=("StableDiffusionPipeline",),
    networks={
        "unet": folder.UNET,
        "vae": folder.VAE,
        "text_encoder": folder.CLIP_TEXT,
        "clip": folder.CLIP,
        "latent_head": folder.LATENT_HEAD,
        "image_prior": folder.IMAGE_PRIOR,
    },
    tokenizers={"tokenizer": folder.CLIP_TOKENIZER},
    schedulers=folder.DIFFUSION,
    unused={"safety_checker": (("stable_diffusion", "StableDiffusionSafetyChecker"),), **folder.UNUSED},
    predictions=folder.NO_FLOW,
    guidance="classifier-free",
    check=_check,
    sides=_sides,
    sees=("clip", "image_prior"),
)


class StableDiffusion(OnLatents):
    """Adapter of one loaded model; see the Family protocol. Rombach et al. 2022 (arXiv 2112.10752)."""

    name = "stable_diffusion"

    def __init__(self, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        import torch

        from clipgen.clip.latent_head import LatentHead

        self.unet, self.text_encoder = parts["unet"], parts["text_encoder"]
        towers = [clip_tower(parts, "", last_layer)]
        super().__init__(self.unet, parts["vae"], towers, _sides(parts), scheduler_config)
        self.defaults: Mapping[str, Any] = self._own_defaults(self.unet.config.sample_size, STEPS, GUIDANCE_SCALE)
        if self.unet.config.in_channels == len(LATENT_RGB):
            self.latent_rgb = torch.tensor(LATENT_RGB)
        if "latent_head" in parts:
            self.latent_head = LatentHead(parts["latent_head"])
        self.image_prior: Any = parts.get("image_prior")

    def encode(self, embedded: Sequence[Embedded], blank: bool) -> dict[str, Tensor]:
        """Returns {encoder_hidden_states [1, T, D]}."""
        return {"encoder_hidden_states": embedded[0].tokens}

    def with_picture(
        self, conditioning: Mapping[str, Tensor], seen: Tensor | None, weight: float, seed: int
    ) -> Mapping[str, Tensor]:
        """Returns the prompt's text states moved towards those of the picture's: all the way at a weight of 1."""
        if seen is None:
            return conditioning
        told, words = conditioning["encoder_hidden_states"], self.towers[0].tokenizer
        marks = words.bos_token_id, words.eos_token_id, words.pad_token_id
        ids = self.image_prior.ids(seen.to(self.image_prior.device), *marks)
        states = last_layer(self.text_encoder, ids.to(told.device)).tokens
        return {**conditioning, "encoder_hidden_states": told.lerp(states.to(told), weight)}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the UNet's output [B, C, h, w] in float32 for scaled latents [B, C, h, w]."""
        dtype = self.unet.conv_in.weight.dtype  # the property `unet.dtype` walks through every tensor
        told = {name: tensor.to(dtype) for name, tensor in conditioning.items()}
        output: Tensor = self.unet(latents.to(dtype), timestep, **told, return_dict=False)[0]
        return output.float()
