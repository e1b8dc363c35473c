"""Kandinsky 2.2: an unCLIP decoder, a UNet conditioned on a CLIP image embedding and on nothing else.

Razzhigaev et al. 2023 (arXiv 2310.03502). Its prior, which makes image embeddings from prompts, is not used: clipgen
generates variations of an image with it and ignores the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import shared
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import ImageEmbeds, PromptEmbeds
from clipgen.models import ConfigComponent, Layout, NetworkSpec, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

STEPS, GUIDANCE_SCALE = 50, 4.0
SCHEDULER = "ddim"  # the model's own DDPM scheduler needs the learned variance, which clipgen drops


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit together."""
    unet, vision = networks["unet"].config, networks["prior_image_encoder"].config
    channels = networks["movq"].config.latent_channels
    if (unet.in_channels, unet.out_channels) != (channels, 2 * channels):
        raise ModelError(
            f"unet takes {unet.in_channels} channels and gives {unet.out_channels}; with a movq of {channels} it must "
            f"give {2 * channels}: the noise and its variance."
        )
    shared.check_inputs(networks["unet"], "kandinsky_2_2", allowed=("addition_embed_type", "encoder_hid_dim_type"))
    if (unet.addition_embed_type, unet.encoder_hid_dim_type) != ("image", "image_proj"):
        raise ModelError("unet/config.json: addition_embed_type must be image, and encoder_hid_dim_type image_proj.")
    if unet.encoder_hid_dim != vision.projection_dim:
        given = f"the image encoder gives {vision.projection_dim}"
        raise ModelError(f"unet expects image_embeds of size {unet.encoder_hid_dim}, {given}.")


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["movq"]) ** 2)


LAYOUT = Layout(
    family="kandinsky_2_2",
    pipeline_classes=("KandinskyV22CombinedPipeline",),
    networks={
        "unet": shared.UNET,
        "movq": NetworkSpec((("diffusers", "VQModel"),)),
        "prior_image_encoder": NetworkSpec((("transformers", "CLIPVisionModelWithProjection"),)),
    },
    tokenizers={},
    schedulers=shared.DIFFUSION_SCHEDULERS,
    unused={
        "prior_prior": (("diffusers", "PriorTransformer"),),
        "prior_text_encoder": (("transformers", "CLIPTextModelWithProjection"),),
        "prior_tokenizer": shared.CLIP_TOKENIZER,
        "prior_scheduler": (("diffusers", "UnCLIPScheduler"),),
    },
    predictions=shared.DIFFUSION_PREDICTIONS,
    guidance="classifier-free, of the picture",
    check=_check,
    size_limits=_size_limits,
    config_components={
        "prior_image_processor": ConfigComponent(shared.UNUSED["feature_extractor"], "preprocessor_config.json")
    },
    image_networks=("prior_image_encoder",),
    requires_image=True,
)


class Kandinsky22(LatentFamily):
    """The adapter of one loaded model; see the Family protocol."""

    name = "kandinsky_2_2"

    def __init__(
        self, components: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
    ) -> None:
        from clipgen.clip.image_encoder import ImageEncoder

        self.unet = components["unet"]
        config = {**scheduler_config, "variance_type": "fixed_small_log"}
        super().__init__(self.unet, components["movq"], [], _size_limits(components), config)
        self.defaults: Mapping[str, Any] = {
            **self._default_settings(self.unet.config.sample_size, STEPS, GUIDANCE_SCALE),
            "scheduler": SCHEDULER,
        }
        self.image_encoder = ImageEncoder(components["prior_image_encoder"], components["prior_image_processor"])
        self.encode_image = lambda pixels: ImageEmbeds(self.image_encoder.image_embeds(pixels))

    def encode(self, embeds: Sequence[PromptEmbeds], is_empty: bool) -> dict[str, Tensor]:
        """Returns {}: the UNet takes no prompt."""
        return {}

    def with_image(
        self, conditioning: Mapping[str, Tensor], image_embeds: Tensor | None, weight: float, seed: int
    ) -> Mapping[str, Tensor]:
        """Returns {image_embeds [1, D]}: weight 1 is the image, weight 0 the embedding of a zero image."""
        zero = self.image_encoder.zero_image_embeds()
        return {"image_embeds": zero if image_embeds is None else zero.lerp(image_embeds, weight)}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the predicted noise [B, C, h, w] in float32, for latents [B, C, h, w] scaled by the scheduler."""
        dtype = self.unet.conv_in.weight.dtype
        inputs = {name: tensor.to(dtype) for name, tensor in conditioning.items()}
        output: Tensor = self.unet(latents.to(dtype), timestep, None, added_cond_kwargs=inputs, return_dict=False)[0]
        return output[:, : latents.shape[1]].float()  # the other C channels are the learned variance

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32, about 0 to 1, of latents [B, C, h, w]."""
        image: Tensor = self.vae.decode(latents.to(self.vae.dtype), force_not_quantize=True, return_dict=False)[0]
        return image.float() / 2 + 0.5
