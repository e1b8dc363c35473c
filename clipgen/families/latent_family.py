"""The base class of the adapters: a denoiser on VAE latents, decoding, and float32 fallbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipgen.families.shared import scheduler_name
from clipgen.families.text_encoders import ImageEmbeds, TextEncoder
from clipgen.models import SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

    from clipgen.clip.latent_head import LatentHead

FAST_PIXELS = 256 * 256  # up to this size an AutoencoderKL decodes fast enough to preview single steps


def vae_scale_factor(vae: Any) -> int:
    """Returns how many pixels one latent covers along each side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


class LatentFamily:
    """A denoiser on the latents of a VAE, conditioned on text encoders; see the Family protocol."""

    distilled = False
    latent_rgb: Tensor | None = None
    latent_head: LatentHead | None = None
    encode_image: Callable[[Tensor], ImageEmbeds] | None = None

    def __init__(
        self,
        denoiser: Any,
        vae: Any,
        text_encoders: Sequence[TextEncoder],
        size_limits: SizeLimits,
        scheduler_config: Mapping[str, Any],
    ) -> None:
        import torch

        from clipgen.sampling.prediction import read_prediction_type

        self.denoiser = denoiser
        self.vae = vae.to(memory_format=torch.channels_last)
        self.text_encoders: Sequence[TextEncoder] = tuple(text_encoders)
        self.size_limits = size_limits
        self.scheduler_config = scheduler_config
        self.prediction_type = read_prediction_type(scheduler_config)
        self.vae_scale_factor = vae_scale_factor(vae)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Returns the shape [C, h, w] of one image's latents."""
        return self.vae.config.latent_channels, height // self.vae_scale_factor, width // self.vae_scale_factor

    def image_seq_len(self, width: int, height: int) -> int:
        """Returns the number of positions that the denoiser processes for one image; flow schedules shift by it."""
        return (width // self.size_limits.multiple_of) * (height // self.size_limits.multiple_of)

    def sigmas(self, steps: int) -> Sequence[float] | None:
        """Returns None: the scheduler chooses the noise levels."""
        return None

    def with_guidance_scale(self, conditioning: Mapping[str, Tensor], guidance_scale: float) -> Mapping[str, Tensor]:
        """Returns the conditioning unchanged: this denoiser has no guidance scale input."""
        return conditioning

    def with_image(
        self, conditioning: Mapping[str, Tensor], image_embeds: Tensor | None, weight: float, seed: int
    ) -> Mapping[str, Tensor]:
        """Returns the conditioning unchanged: this denoiser takes no image."""
        return conditioning

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32, about 0 to 1, of latents [B, C, h, w]."""
        import torch

        config = self.vae.config
        scaled = (latents / config.scaling_factor + (config.shift_factor or 0.0)).to(self.vae.dtype)
        image: Tensor = self.vae.decode(scaled.contiguous(memory_format=torch.channels_last), return_dict=False)[0]
        return image.float() / 2 + 0.5

    def decodes_fast(self, width: int, height: int) -> bool:
        """Tells whether decoding an image of this size takes little time compared with a step."""
        return type(self.vae).__name__ == "AutoencoderTiny" or width * height <= FAST_PIXELS

    def decoder_to_float32(self) -> bool:
        """Converts the decoder to float32 permanently; returns False if it was float32 already."""
        return _to_float32(self.vae)

    def denoiser_to_float32(self) -> bool:
        """Converts denoiser and text encoders to float32 permanently; returns False if they were float32 already."""
        networks = [self.denoiser, *(text_encoder.model for text_encoder in self.text_encoders)]
        changes = [_to_float32(network) for network in networks]  # a list, so that all are converted
        return any(changes)

    def _default_settings(self, sample_size: int | Sequence[int], steps: int, guidance_scale: float) -> dict[str, Any]:
        """Returns default Settings fields; `sample_size` is a side of the trained latents, or (height, width)."""
        height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
        return {
            "steps": steps,
            "width": width * self.vae_scale_factor,
            "height": height * self.vae_scale_factor,
            "scheduler": scheduler_name(self.scheduler_config),
            "guidance_scale": guidance_scale,
            "eta": 0.0,
        }


def _to_float32(network: Any) -> bool:
    import torch

    quantised = [layer for layer in network.modules() if isinstance(vars(layer).get("compute_dtype"), torch.dtype)]
    changed = bool(network.dtype != torch.float32) or any(layer.compute_dtype != torch.float32 for layer in quantised)
    network.float()
    for layer in quantised:  # diffusers' GGUF layers convert their weights to it at each use
        layer.compute_dtype = torch.float32
    return changed
