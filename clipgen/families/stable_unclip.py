"""Stable unCLIP: a Stable Diffusion 2 that is told a picture by its CLIP vector, beside a prompt; it draws variations.

Rombach 2023 (Stable Diffusion 2.1 unCLIP), after Ramesh et al. 2022 (arXiv 2204.06125).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import folder, stable_diffusion
from clipgen.families.latents import factor_of
from clipgen.families.towers import Seen
from clipgen.models import Layout, Part, Sheet, Sides

if TYPE_CHECKING:
    from torch import Tensor

STEPS, GUIDANCE_SCALE = 20, 10.0
NOISING = "image_noising_scheduler"


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit one another."""
    unet, text, vision = networks["unet"], networks["text_encoder"].config, networks["image_encoder"].config
    folder.check_latents("unet", unet.config.in_channels, unet.config.out_channels, networks["vae"])
    folder.check_inputs(unet, "stable_unclip", known=("class_embed_type",))
    if unet.config.class_embed_type != "projection":
        raise ModelError(
            f"unet/config.json: class_embed_type must be projection, got '{unet.config.class_embed_type}'."
        )
    folder.check_width("unet reads embeddings", unet.config.cross_attention_dim, text.hidden_size)
    both = 2 * vision.projection_dim  # the vector, and how noisy it is
    if unet.config.projection_class_embeddings_input_dim != both:
        wanted = unet.config.projection_class_embeddings_input_dim
        raise ModelError(f"unet reads picture vectors of {wanted}, the image encoder gives {both}.")
    normed = networks["image_normalizer"].config.embedding_dim
    folder.check_width("image_normalizer reads vectors", normed, vision.projection_dim)
    folder.check_lengths(tokenizers, networks, "tokenizer")


def _sides(networks: Mapping[str, Any]) -> Sides:
    return Sides(factor_of(networks["vae"]))


LAYOUT = Layout(
    family="stable_unclip",
    pipeline_classes=("StableUnCLIPImg2ImgPipeline",),
    networks={
        "unet": folder.UNET,
        "vae": folder.VAE,
        "text_encoder": folder.CLIP_TEXT,
        "image_encoder": Part((("transformers", "CLIPVisionModelWithProjection"),)),
        "image_normalizer": Part((("stable_diffusion", "StableUnCLIPImageNormalizer"),), full_precision=True),
    },
    tokenizers={"tokenizer": folder.CLIP_TOKENIZER},
    schedulers=folder.DIFFUSION,
    unused={},
    predictions=folder.NO_FLOW,
    guidance="classifier-free, of prompt and picture",
    check=_check,
    sides=_sides,
    sheets={
        NOISING: Sheet((("diffusers", "DDPMScheduler"),), "scheduler_config.json"),
        "feature_extractor": Sheet(folder.UNUSED["feature_extractor"], "preprocessor_config.json"),
    },
    sees=("image_encoder", "image_normalizer"),
    only_varies=True,
)


class StableUnclip(stable_diffusion.StableDiffusion):
    """Adapter of one loaded model; see the Family protocol."""

    name = "stable_unclip"

    def __init__(self, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        from diffusers import DDPMScheduler

        from clipgen.clip.vision import VisionTower

        super().__init__(parts, scheduler_config, index)
        self.defaults = self._own_defaults(self.unet.config.sample_size, STEPS, GUIDANCE_SCALE)
        self.image_normalizer = parts["image_normalizer"]
        self.noising = DDPMScheduler.from_config(parts[NOISING])
        tower = VisionTower(parts["image_encoder"], parts["feature_extractor"])
        self.see = lambda pixels: Seen(tower.embeds(pixels))

    def with_picture(
        self, conditioning: Mapping[str, Tensor], seen: Tensor | None, weight: float, seed: int
    ) -> Mapping[str, Tensor]:
        """Returns the conditioning with class_labels [1, 2 D]: the vector, noised the more the less it weighs, and how.

        Without a picture they are zeros. A weight of 1 is diffusers' noise_level 0, a weight of 0 its highest.
        """
        import torch

        told = conditioning["encoder_hidden_states"]
        if seen is None:
            return {**conditioning, "class_labels": told.new_zeros(1, 2 * self.image_normalizer.config.embedding_dim)}
        noise = torch.randn(seen.shape, generator=torch.Generator("cpu").manual_seed(noise_seed(seed))).to(seen)
        highest = self.noising.config.num_train_timesteps - 1
        return {**conditioning, "class_labels": self.labels(seen, round((1 - weight) * highest), noise).to(told)}

    def labels(self, seen: Tensor, noise_level: int, noise: Tensor) -> Tensor:
        """Returns class_labels [1, 2 D] of a vector [1, D] with so much of some noise [1, D] in it."""
        import torch
        from diffusers.models.embeddings import get_timestep_embedding

        level = torch.tensor([noise_level], device=seen.device)
        mean, std = (each.to(seen) for each in (self.image_normalizer.mean, self.image_normalizer.std))
        noised = self.noising.add_noise((seen - mean) / std, noise, level) * std + mean
        told_level = get_timestep_embedding(level, seen.shape[-1], flip_sin_to_cos=True, downscale_freq_shift=0)
        return torch.cat([noised, told_level.to(noised)], dim=1)


def noise_seed(seed: int) -> int:
    """Returns the seed of the noise on a picture's vector, another than that of the latents."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/vary".encode(), digest_size=7).digest(), "big")
