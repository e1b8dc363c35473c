"""Stable unCLIP: Stable Diffusion 2 with a CLIP image embedding as second conditioning; it generates variations.

Rombach 2023 (Stable Diffusion 2.1 unCLIP), after Ramesh et al. 2022 (arXiv 2204.06125).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import shared, stable_diffusion
from clipgen.families.latent_family import vae_scale_factor
from clipgen.families.text_encoders import ImageEmbeds
from clipgen.hashing import seed_from_text
from clipgen.models import ConfigComponent, Layout, NetworkSpec, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

STEPS, GUIDANCE_SCALE = 20, 10.0
NOISING_SCHEDULER = "image_noising_scheduler"


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit together."""
    unet, text, vision = networks["unet"], networks["text_encoder"].config, networks["image_encoder"].config
    shared.check_latents("unet", unet.config.in_channels, unet.config.out_channels, networks["vae"])
    shared.check_inputs(unet, "stable_unclip", allowed=("class_embed_type",))
    if unet.config.class_embed_type != "projection":
        raise ModelError(
            f"unet/config.json: class_embed_type must be projection, got '{unet.config.class_embed_type}'."
        )
    shared.check_embed_size("unet", "prompt_embeds", unet.config.cross_attention_dim, text.hidden_size)
    class_labels_size = 2 * vision.projection_dim  # the image embedding and the embedding of its noise level
    if unet.config.projection_class_embeddings_input_dim != class_labels_size:
        expected = unet.config.projection_class_embeddings_input_dim
        raise ModelError(f"unet expects class_labels of size {expected}, the image encoder gives {class_labels_size}.")
    normalizer_size = networks["image_normalizer"].config.embedding_dim
    shared.check_embed_size("image_normalizer", "image_embeds", normalizer_size, vision.projection_dim)
    shared.check_lengths(tokenizers, networks, "tokenizer")


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["vae"]))


LAYOUT = Layout(
    family="stable_unclip",
    pipeline_classes=("StableUnCLIPImg2ImgPipeline",),
    networks={
        "unet": shared.UNET,
        "vae": shared.VAE,
        "text_encoder": shared.CLIP_TEXT,
        "image_encoder": NetworkSpec((("transformers", "CLIPVisionModelWithProjection"),)),
        "image_normalizer": NetworkSpec((("stable_diffusion", "StableUnCLIPImageNormalizer"),), full_precision=True),
    },
    tokenizers={"tokenizer": shared.CLIP_TOKENIZER},
    schedulers=shared.DIFFUSION_SCHEDULERS,
    unused={},
    predictions=shared.DIFFUSION_PREDICTIONS,
    guidance="classifier-free, of prompt and picture",
    check=_check,
    size_limits=_size_limits,
    config_components={
        NOISING_SCHEDULER: ConfigComponent((("diffusers", "DDPMScheduler"),), "scheduler_config.json"),
        "feature_extractor": ConfigComponent(shared.UNUSED["feature_extractor"], "preprocessor_config.json"),
    },
    image_networks=("image_encoder", "image_normalizer"),
    requires_image=True,
    clip_text=True,
)


class StableUnclip(stable_diffusion.StableDiffusion):
    """The adapter of one loaded model; see the Family protocol."""

    name = "stable_unclip"

    def __init__(
        self, components: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
    ) -> None:
        from diffusers import DDPMScheduler

        from clipgen.clip.image_encoder import ImageEncoder

        super().__init__(components, scheduler_config, index)
        self.defaults = self._default_settings(self.unet.config.sample_size, STEPS, GUIDANCE_SCALE)
        self.image_normalizer = components["image_normalizer"]
        self.noising_scheduler = DDPMScheduler.from_config(components[NOISING_SCHEDULER])
        image_encoder = ImageEncoder(components["image_encoder"], components["feature_extractor"])
        self.encode_image = lambda pixels: ImageEmbeds(image_encoder.image_embeds(pixels))

    def with_image(
        self, conditioning: Mapping[str, Tensor], image_embeds: Tensor | None, weight: float, seed: int
    ) -> Mapping[str, Tensor]:
        """Returns the conditioning with class_labels [1, 2 D]: the noised image embedding and its noise level.

        `weight` 1 is diffusers' noise_level 0, and 0 its highest noise_level. Without an image class_labels are zeros.
        """
        import torch

        states = conditioning["encoder_hidden_states"]
        if image_embeds is None:
            size = 2 * self.image_normalizer.config.embedding_dim
            return {**conditioning, "class_labels": states.new_zeros(1, size)}
        generator = torch.Generator("cpu").manual_seed(noise_seed(seed))
        noise = torch.randn(image_embeds.shape, generator=generator).to(image_embeds)
        noise_level = round((1 - weight) * (self.noising_scheduler.config.num_train_timesteps - 1))
        return {**conditioning, "class_labels": self.class_labels(image_embeds, noise_level, noise).to(states)}

    def class_labels(self, image_embeds: Tensor, noise_level: int, noise: Tensor) -> Tensor:
        """Returns class_labels [1, 2 D] as diffusers' noise_image_embeddings does, with the given noise [1, D]."""
        import torch
        from diffusers.models.embeddings import get_timestep_embedding

        level = torch.tensor([noise_level], device=image_embeds.device)
        mean, std = (each.to(image_embeds) for each in (self.image_normalizer.mean, self.image_normalizer.std))
        noised = self.noising_scheduler.add_noise((image_embeds - mean) / std, noise, level) * std + mean
        level_embeds = get_timestep_embedding(
            level, image_embeds.shape[-1], flip_sin_to_cos=True, downscale_freq_shift=0
        )
        return torch.cat([noised, level_embeds.to(noised)], dim=1)


def noise_seed(seed: int) -> int:
    """Returns the seed of the noise on an image embedding; it differs from the seed of the latents."""
    return seed_from_text(f"{seed}/vary")
