"""Kandinsky 2.2: unCLIP's decoder, a UNet that is told a picture by its CLIP vector and nothing else.

Razzhigaev et al. 2023 (arXiv 2310.03502). Its prior, which makes such vectors from prompts, is not used: it draws
variations, and reads no prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import components
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import ImageEmbeds, PromptEmbeds
from clipgen.models import ConfigComponent, Layout, NetworkSpec, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

STEPS, GUIDANCE_SCALE, SCHEDULER = 50, 4.0, "ddim"  # its own DDPM draws by a learnt variance, which is left out


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit one another."""
    unet, vision = networks["unet"].config, networks["prior_image_encoder"].config
    channels = networks["movq"].config.latent_channels
    if (unet.in_channels, unet.out_channels) != (channels, 2 * channels):
        raise ModelError(
            f"unet takes {unet.in_channels} channels and gives {unet.out_channels}; with a movq of {channels} it must "
            f"give {2 * channels}: the noise and its variance."
        )
    components.check_inputs(networks["unet"], "kandinsky_2_2", known=("addition_embed_type", "encoder_hid_dim_type"))
    if (unet.addition_embed_type, unet.encoder_hid_dim_type) != ("image", "image_proj"):
        raise ModelError("unet/config.json: addition_embed_type must be image, and encoder_hid_dim_type image_proj.")
    if unet.encoder_hid_dim != vision.projection_dim:
        given = f"the image encoder gives {vision.projection_dim}"
        raise ModelError(f"unet reads picture vectors of {unet.encoder_hid_dim}, {given}.")


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["movq"]) ** 2)


LAYOUT = Layout(
    family="kandinsky_2_2",
    pipeline_classes=("KandinskyV22CombinedPipeline",),
    networks={
        "unet": components.UNET,
        "movq": NetworkSpec((("diffusers", "VQModel"),)),
        "prior_image_encoder": NetworkSpec((("transformers", "CLIPVisionModelWithProjection"),)),
    },
    tokenizers={},
    schedulers=components.DIFFUSION,
    unused={
        "prior_prior": (("diffusers", "PriorTransformer"),),
        "prior_text_encoder": (("transformers", "CLIPTextModelWithProjection"),),
        "prior_tokenizer": components.CLIP_TOKENIZER,
        "prior_scheduler": (("diffusers", "UnCLIPScheduler"),),
    },
    predictions=components.NO_FLOW,
    guidance="classifier-free, of the picture",
    check=_check,
    size_limits=_size_limits,
    config_components={
        "prior_image_processor": ConfigComponent(components.UNUSED["feature_extractor"], "preprocessor_config.json")
    },
    image_networks=("prior_image_encoder",),
    requires_image=True,
)


class Kandinsky22(LatentFamily):
    """Adapter of one loaded model; see the Family protocol."""

    name = "kandinsky_2_2"

    def __init__(self, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        from clipgen.clip.image_encoder import ImageEncoder

        self.unet = parts["unet"]
        known = {**scheduler_config, "variance_type": "fixed_small_log"}
        super().__init__(self.unet, parts["movq"], [], _size_limits(parts), known)
        self.defaults: Mapping[str, Any] = {
            **self._own_defaults(self.unet.config.sample_size, STEPS, GUIDANCE_SCALE),
            "scheduler": SCHEDULER,
        }
        self.image_encoder = ImageEncoder(parts["prior_image_encoder"], parts["prior_image_processor"])
        self.encode_image = lambda pixels: ImageEmbeds(self.image_encoder.image_embeds(pixels))

    def encode(self, embedded: Sequence[PromptEmbeds], blank: bool) -> dict[str, Tensor]:
        """Returns {}: no prompt is told."""
        return {}

    def with_image(
        self, conditioning: Mapping[str, Tensor], seen: Tensor | None, weight: float, seed: int
    ) -> Mapping[str, Tensor]:
        """Returns {image_embeds [1, D]}: the vector, moved towards that of no picture where it weighs less than 1."""
        nothing = self.image_encoder.zero_image_embeds()
        return {"image_embeds": nothing if seen is None else nothing.lerp(seen, weight)}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the noise [B, C, h, w] in float32 for scaled latents; the variance after it is left out."""
        dtype = self.unet.conv_in.weight.dtype
        told = {name: tensor.to(dtype) for name, tensor in conditioning.items()}
        output: Tensor = self.unet(latents.to(dtype), timestep, None, added_cond_kwargs=told, return_dict=False)[0]
        return output[:, : latents.shape[1]].float()

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32, 0 to 1 where the decoder keeps to its range."""
        image: Tensor = self.vae.decode(latents.to(self.vae.dtype), force_not_quantize=True, return_dict=False)[0]
        return image.float() / 2 + 0.5
