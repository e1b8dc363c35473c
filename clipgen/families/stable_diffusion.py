"""Stable Diffusion 1 and 2, their fine-tunes, and storybook: a UNet on VAE latents, told by one CLIP text encoder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.models import Layout, Part
from clipgen.prediction import check_prediction
from clipgen.schedulers import SCHEDULERS

if TYPE_CHECKING:
    from torch import Tensor

# Rough colours, -1 to 1, of Stable Diffusion's 4 latent channels: fitted by Keturn, discuss.huggingface.co/t/23204.
SD_LATENT_RGB = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))
FAST_PIXELS = 256 * 256  # up to here a KL decoder is fast enough to look at single steps
STEPS, GUIDANCE_SCALE = 30, 7.5
OTHER_SCHEDULERS = {"LMSDiscreteScheduler": "euler", "DPMSolverSinglestepScheduler": "dpm++_2m"}
TOKENIZERS = (("transformers", "CLIPTokenizer"), ("transformers", "CLIPTokenizerFast"))
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _text_name(name: str) -> str:
    """Maps a tensor name of transformers before 5.6, which nested the tower, to today's."""
    return name.removeprefix("text_model.")


def _vae_name(name: str) -> str:
    """Maps the attention names of VAEs saved by diffusers before 0.17 to today's."""
    return re.sub(r"(attentions\.\d+\.)(query|key|value|proj_attn)\.", lambda m: f"{m[1]}{OLD_ATTENTION[m[2]]}.", name)


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit one another, and for UNets that want more than a prompt."""
    unet, vae, text = (networks[name].config for name in ("unet", "vae", "text_encoder"))
    if unet.in_channels != vae.latent_channels or unet.out_channels != vae.latent_channels:
        raise ModelError(
            f"unet takes {unet.in_channels} channels and the vae gives {vae.latent_channels}: a model that needs an "
            "image, a mask or depth beside the prompt is not supported."
        )
    extras = (
        "class_embed_type",
        "addition_embed_type",
        "encoder_hid_dim_type",
        "time_cond_proj_dim",
        "num_class_embeds",
    )
    if wanted := [name for name in extras if unet[name] is not None]:
        raise ModelError(f"unet/config.json: {wanted[0]} is set; clipgen's stable_diffusion family has no such input.")
    if unet.cross_attention_dim != text.hidden_size:
        raise ModelError(f"unet reads embeddings of {unet.cross_attention_dim}, text_encoder gives {text.hidden_size}.")
    length = tokenizers["tokenizer"]["model_max_length"]
    if length > text.max_position_embeddings:
        raise ModelError(f"tokenizer gives {length} tokens, text_encoder has {text.max_position_embeddings} places.")


LAYOUT = Layout(
    family="stable_diffusion",
    pipeline_classes=("StableDiffusionPipeline",),
    networks={
        "unet": Part((("diffusers", "UNet2DConditionModel"),)),
        "vae": Part((("diffusers", "AutoencoderKL"), ("diffusers", "AutoencoderTiny")), _vae_name),
        "text_encoder": Part((("transformers", "CLIPTextModel"),), _text_name),
        "clip": Part((("transformers", "CLIPModel"),), required=False, full_precision=True),
    },
    tokenizers={"tokenizer": TOKENIZERS},
    schedulers=tuple({spec.class_name: None for spec in SCHEDULERS.values()} | OTHER_SCHEDULERS),
    unused={
        "safety_checker": (("stable_diffusion", "StableDiffusionSafetyChecker"),),
        "feature_extractor": (("transformers", "CLIPImageProcessor"), ("transformers", "CLIPFeatureExtractor")),
        "image_encoder": (("transformers", "CLIPVisionModelWithProjection"),),
    },
    check=_check,
)


class StableDiffusion:
    """Adapter of one loaded model; see the Family protocol. Rombach et al. 2022 (arXiv 2112.10752)."""

    name = "stable_diffusion"

    def __init__(self, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any]) -> None:
        import torch

        self.tokenizer, self.text_encoder = parts["tokenizer"], parts["text_encoder"]
        self.unet, self.vae = parts["unet"], parts["vae"].to(memory_format=torch.channels_last)
        self.scheduler_config = scheduler_config
        self.prediction = check_prediction(scheduler_config)
        self.factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.defaults: Mapping[str, Any] = self._own_defaults()
        is_sd = self.unet.config.in_channels == len(SD_LATENT_RGB)
        self.latent_rgb: Tensor | None = torch.tensor(SD_LATENT_RGB) if is_sd else None

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Returns [C, h, w] of one picture's latents."""
        return self.unet.config.in_channels, height // self.factor, width // self.factor

    def encode(self, embed: Callable[[Any, Any], Tensor]) -> dict[str, Tensor]:
        """Returns what the UNet is told of one prompt: encoder_hidden_states [1, T, D]."""
        return {"encoder_hidden_states": embed(self.tokenizer, self.text_encoder)}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the UNet's output [B, C, h, w] in float32 for scaled latents [B, C, h, w]."""
        dtype = self.unet.conv_in.weight.dtype  # the property `unet.dtype` walks through every tensor
        told = {name: tensor.to(dtype) for name, tensor in conditioning.items()}
        output: Tensor = self.unet(latents.to(dtype), timestep, **told, return_dict=False)[0]
        return output.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32, 0 to 1 where the decoder keeps to its range."""
        import torch

        scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        image: Tensor = self.vae.decode(scaled.contiguous(memory_format=torch.channels_last), return_dict=False)[0]
        return image.float() / 2 + 0.5

    def decodes_fast(self, width: int, height: int) -> bool:
        """Tells whether decoding a picture of that size costs little beside a step."""
        return type(self.vae).__name__ == "AutoencoderTiny" or width * height <= FAST_PIXELS

    def decoder_to_float32(self) -> bool:
        """Puts the decoder into float32 for good; returns False if it was."""
        return _to_float32(self.vae)

    def denoiser_to_float32(self) -> bool:
        """Puts UNet and text encoder into float32 for good; returns False if they were."""
        return any([_to_float32(self.unet), _to_float32(self.text_encoder)])

    def _own_defaults(self) -> dict[str, Any]:
        side = self.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return {
            "steps": STEPS,
            "width": width * self.factor,
            "height": height * self.factor,
            "scheduler": own_scheduler(self.scheduler_config),
            "guidance_scale": GUIDANCE_SCALE,
            "eta": 0.0,
        }


def own_scheduler(config: Mapping[str, Any]) -> str:
    """Returns our name for the scheduler of a model's config: of its class the one whose options differ least."""
    name = config["_class_name"]
    if name in OTHER_SCHEDULERS:
        return OTHER_SCHEDULERS[name]
    specs = [spec for spec in SCHEDULERS.values() if spec.class_name == name]
    return min(specs, key=lambda spec: sum(config.get(key, value) != value for key, value in spec.options.items())).name


def _to_float32(network: Any) -> bool:
    import torch

    changes = bool(network.dtype != torch.float32)
    network.float()
    return changes
