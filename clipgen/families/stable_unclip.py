"""Stable unCLIP: a Stable Diffusion 2 that is told a picture by its CLIP vector, beside a prompt; it draws variations.

Rombach 2023 (Stable Diffusion 2.1 unCLIP), after Ramesh et al. 2022 (arXiv 2204.06125).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import components, stable_diffusion
from clipgen.families.latent_family import vae_scale_factor
from clipgen.families.text_encoders import ImageEmbeds
from clipgen.models import ConfigComponent, Layout, NetworkSpec, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

STEPS, GUIDANCE_SCALE = 20, 10.0
NOISING = "image_noising_scheduler"


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit one another."""
    unet, text, vision = networks["unet"], networks["text_encoder"].config, networks["image_encoder"].config
    components.check_latents("unet", unet.config.in_channels, unet.config.out_channels, networks["vae"])
    components.check_inputs(unet, "stable_unclip", known=("class_embed_type",))
    if unet.config.class_embed_type != "projection":
        raise ModelError(
            f"unet/config.json: class_embed_type must be projection, got '{unet.config.class_embed_type}'."
        )
    components.check_width("unet reads embeddings", unet.config.cross_attention_dim, text.hidden_size)
    both = 2 * vision.projection_dim  # the vector, and how noisy it is
    if unet.config.projection_class_embeddings_input_dim != both:
        wanted = unet.config.projection_class_embeddings_input_dim
        raise ModelError(f"unet reads picture vectors of {wanted}, the image encoder gives {both}.")
    normed = networks["image_normalizer"].config.embedding_dim
    components.check_width("image_normalizer reads vectors", normed, vision.projection_dim)
    components.check_lengths(tokenizers, networks, "tokenizer")


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["vae"]))


LAYOUT = Layout(
    family="stable_unclip",
    pipeline_classes=("StableUnCLIPImg2ImgPipeline",),
    networks={
        "unet": components.UNET,
        "vae": components.VAE,
        "text_encoder": components.CLIP_TEXT,
        "image_encoder": NetworkSpec((("transformers", "CLIPVisionModelWithProjection"),)),
        "image_normalizer": NetworkSpec((("stable_diffusion", "StableUnCLIPImageNormalizer"),), full_precision=True),
    },
    tokenizers={"tokenizer": components.CLIP_TOKENIZER},
    schedulers=components.DIFFUSION,
    unused={},
    predictions=components.NO_FLOW,
    guidance="classifier-free, of prompt and picture",
    check=_check,
    size_limits=_size_limits,
    config_components={
        NOISING: ConfigComponent((("diffusers", "DDPMScheduler"),), "scheduler_config.json"),
        "feature_extractor": ConfigComponent(components.UNUSED["feature_extractor"], "preprocessor_config.json"),
    },
    image_networks=("image_encoder", "image_normalizer"),
    requires_image=True,
)


class StableUnclip(stable_diffusion.StableDiffusion):
    """Adapter of one loaded model; see the Family protocol."""

    name = "stable_unclip"

    def __init__(self, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        from diffusers import DDPMScheduler

        from clipgen.clip.image_encoder import ImageEncoder

        super().__init__(parts, scheduler_config, index)
        self.defaults = self._own_defaults(self.unet.config.sample_size, STEPS, GUIDANCE_SCALE)
        self.image_normalizer = parts["image_normalizer"]
        self.noising = DDPMScheduler.from_config(parts[NOISING])
        image_encoder = ImageEncoder(parts["image_encoder"], parts["feature_extractor"])
        self.encode_image = lambda pixels: ImageEmbeds(image_encoder.image_embeds(pixels))

    def with_image(
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
