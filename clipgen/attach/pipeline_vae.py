"""The VAE of a diffusers pipeline: how its latents become pixels, for each VAE class, outside of the pipeline.

Guidance decodes at every step, so it does not use the pipeline's own VAE: offload hooks would move it to the device and
the denoiser away. It uses another module with the same weights and without hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import torch
from torch import Tensor

from clipgen.errors import ModelError
from clipgen.families import latent_rgb_matrix
from clipgen.models.without_hooks import without_hooks

VAES = ("vae", "movq", "vqgan", "vqvae")  # names of pipeline components
DecodeLatents = Callable[[Any, Tensor], Tensor]  # a VAE, latents [B, C, h, w] -> pixels [B, 3 or more, H, W], -1 to 1
PROBE = 4  # side of the latents that measure how many pixels one latent covers


class PipelineVae:
    """A pipeline's VAE on the device, without hooks; see VaeModel of guidance.latent_decoder.

    Raises ModelError for a pipeline without a VAE, or with one of a class that is not in RECIPES.
    """

    def __init__(self, pipe: Any, device: torch.device) -> None:
        name, original = find_vae(pipe)
        self.vae: Any = without_hooks(original)
        self._decode = find_recipe(pipe, name, self.vae)
        self.vae.to(device)
        if all(weight.ndim != 5 for weight in self.vae.parameters()):
            self.vae.to(memory_format=torch.channels_last)
        self.channels = latent_channels(self.vae)
        self.latent_rgb = latent_rgb_matrix(type(pipe).__name__, self.channels)
        with torch.no_grad():
            probe = self.decode(torch.zeros(1, self.channels, PROBE, PROBE, device=device))
        self.scale_factor = max(1, probe.shape[-1] // PROBE)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Returns the shape [C, h, w] of the latents of an image of this size in pixels."""
        return self.channels, height // self.scale_factor, width // self.scale_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32, about 0 to 1, of latents [B, C, h, w] as the denoiser has them."""
        return self._decode(self.vae, latents)[:, :3].float() / 2 + 0.5


def find_vae(pipe: Any) -> tuple[str, Any]:
    """Returns the name of a pipeline's VAE component and the VAE; raises ModelError for a pipeline without one."""
    for name in VAES:
        if (vae := pipe.components.get(name)) is not None:
            return name, vae
    raise ModelError(
        f"{type(pipe).__name__} has no VAE. ClipGuidance guides latent diffusion, not pixels or embeddings."
    )


def latent_channels(vae: Any) -> int:
    """Returns the number of channels of a VAE's latents."""
    return int(vae.config["z_dim"] if "z_dim" in vae.config else vae.config["latent_channels"])


def decode_scaled(vae: Any, latents: Tensor) -> Tensor:
    """Decodes latents that were shifted and scaled by one number each; SDXL finetunes have a mean per channel."""
    config = vae.config
    latents = latents / config["scaling_factor"]
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        latents = latents * _per_channel(config["latents_std"], latents) + _per_channel(config["latents_mean"], latents)
    return _decode(vae, latents + (config.get("shift_factor") or 0.0))


def decode_normalised(vae: Any, latents: Tensor) -> Tensor:
    """Decodes latents that were normalised per channel."""
    mean, std = (_per_channel(vae.config[name], latents) for name in ("latents_mean", "latents_std"))
    return _decode(vae, latents * std + mean)


def decode_one_frame(vae: Any, latents: Tensor) -> Tensor:
    """Decodes latents normalised per channel with a video VAE, as videos of one frame: [B, C, 1, h, w]."""
    mean, std = (_per_channel(vae.config[name], latents) for name in ("latents_mean", "latents_std"))
    return _decode(vae, (latents * std + mean)[:, :, None])[:, :, 0]


def decode_batch_norm(vae: Any, latents: Tensor) -> Tensor:
    """Decodes latents that a batch norm normalised in patches of 2 x 2: Flux 2.

    The statistics [4 C] are in the order (channel, row, column), as maps [C, h, w] they repeat every two positions.
    """
    height, width = latents.shape[-2:]

    def as_map(statistics: Tensor) -> Tensor:
        patch = statistics.to(latents).unflatten(0, (-1, 2, 2))  # [C, 2, 2]
        return patch.repeat(1, ceil(height / 2), ceil(width / 2))[:, :height, :width]

    std = (vae.bn.running_var + vae.config["batch_norm_eps"]).sqrt()
    return _decode(vae, latents * as_map(std) + as_map(vae.bn.running_mean))


def decode_movq(vae: Any, latents: Tensor) -> Tensor:
    """Decodes continuous latents with the MoVQ of Kandinsky, without quantisation."""
    return _decode(vae, latents, force_not_quantize=True)


def decode_quantised(vae: Any, latents: Tensor) -> Tensor:
    """Decodes latents with a VQ-GAN, which rounds them to its codebook; the gradient skips the rounding."""
    return _decode(vae, latents / vae.config["scaling_factor"])


def decode_paella(vae: Any, latents: Tensor) -> Tensor:
    """Decodes latents with the VQ-GAN of Wuerstchen and Stable Cascade, whose pixels are 0 to 1."""
    return _decode(vae, latents * vae.config["scale_factor"]) * 2 - 1


RECIPES: dict[str, DecodeLatents] = {  # by VAE class
    "AutoencoderKL": decode_scaled,
    "AsymmetricAutoencoderKL": decode_scaled,
    "AutoencoderTiny": decode_scaled,
    "AutoencoderDC": decode_scaled,
    "AutoencoderKLHunyuanImage": decode_scaled,
    "AutoencoderKLQwenImage": decode_one_frame,
    "AutoencoderKLQwenImage21": decode_one_frame,
    "AutoencoderKLWan": decode_one_frame,
    "AutoencoderKLFlux2": decode_batch_norm,
    "VQModel": decode_quantised,
    "PaellaVQModel": decode_paella,
}
PIPELINE_RECIPES: dict[str, DecodeLatents] = {  # pipelines that use a VAE in another way than most
    "GlmImagePipeline": decode_normalised,
}


def find_recipe(pipe: Any, name: str, vae: Any) -> DecodeLatents:
    """Returns how a pipeline decodes with its component `name`; raises ModelError for an unknown VAE class."""
    pipeline_class, vae_class = type(pipe).__name__, type(vae).__name__
    if pipeline_class in PIPELINE_RECIPES:
        return PIPELINE_RECIPES[pipeline_class]
    if name == "movq":
        return decode_movq
    if vae_class not in RECIPES:
        raise ModelError(
            f"ClipGuidance cannot decode with '{vae_class}' of {pipeline_class}. Works: {', '.join(RECIPES)}."
        )
    return RECIPES[vae_class]


def _decode(vae: Any, latents: Tensor, **options: bool) -> Tensor:
    if latents.ndim == 4:
        latents = latents.contiguous(memory_format=torch.channels_last)
    pixels: Tensor = vae.decode(latents.to(vae.dtype), return_dict=False, **options)[0]
    return pixels


def _per_channel(values: Any, latents: Tensor) -> Tensor:
    """Returns one value per channel as a tensor that broadcasts with latents [B, C, h, w]."""
    return torch.as_tensor(values, dtype=torch.float32).to(latents).view(-1, 1, 1)
