"""The base class of the adapters: a denoiser on VAE latents, decoding, and float32 fallbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipgen.device import wider_dtype
from clipgen.families.shared import scheduler_name
from clipgen.families.text_encoders import ImageEmbeds, TextEncoder
from clipgen.models import SizeLimits

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from clipgen.clip.latent_head import LatentHead

VIDEO_VAES = ("AutoencoderKLQwenImage",)  # they have 3-D convolutions and an axis of frames
FAST_PIXELS = 256 * 256  # up to this size an AutoencoderKL decodes fast enough to preview single steps


def vae_scale_factor(vae: Any) -> int:
    """Returns how many pixels one latent covers along each side."""
    if type(vae).__name__ in VIDEO_VAES:
        return int(2 ** len(vae.config.temperal_downsample))
    return int(2 ** (len(vae.config.block_out_channels) - 1))


class LatentFamily:
    """A denoiser on the latents of a VAE, conditioned on text encoders; see the Family protocol."""

    distilled = False
    text_encoders_wait = False
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
        self.vae = vae if type(vae).__name__ in VIDEO_VAES else vae.to(memory_format=torch.channels_last)
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

    def shift_mu(self, width: int, height: int, steps: int) -> float | None:
        """Returns None: the scheduler's config says how the noise levels shift with the number of image tokens."""
        return None

    def cfg_scale(self, guidance_scale: float) -> float:
        """Returns s of uncond + s (cond - uncond); 1 for a distilled model, which has no unconditional prediction."""
        return 1.0 if self.distilled else guidance_scale

    def rescale_guided(self, guided: Tensor, cond: Tensor) -> Tensor:
        """Returns a model output under classifier-free guidance unchanged: this model rescales nothing."""
        return guided

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

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in [0, 1] encoded with the VAE and decoded again, in float32.

        Of a distribution of latents the mode is taken. Scaling and shift of the latents would cancel out.
        """
        encoded = self.vae.encode((pixels * 2 - 1).to(device=self.vae.device, dtype=self.vae.dtype))
        latents = encoded.latent_dist.mode() if "latent_dist" in encoded else encoded.latents
        image: Tensor = self.vae.decode(latents, return_dict=False)[0]
        return image.float() / 2 + 0.5

    def decodes_fast(self, width: int, height: int) -> bool:
        """Tells whether decoding an image of this size takes little time compared with a step."""
        return type(self.vae).__name__ == "AutoencoderTiny" or width * height <= FAST_PIXELS

    def decoder_to_float32(self) -> bool:
        """Converts the decoder to float32 permanently; returns False if it was float32 already.

        An offloaded or compiled one of a diffusers pipeline belongs to the caller and stays as it is.
        """
        import torch

        from clipgen.models.without_hooks import is_wrapped

        if is_wrapped(self.vae) or self.vae.dtype == torch.float32:
            return False
        _convert(self.vae, torch.float32)
        return True

    def tile_decoder(self) -> bool:
        """Makes the VAE decode large images in tiles, permanently; returns False if it does so already or cannot."""
        if vars(self.vae).get("use_tiling", True):
            return False
        self.vae.enable_tiling()
        return True

    def widen_denoiser(self) -> torch.dtype | None:
        """Converts denoiser and text encoders to a dtype of wider range permanently.

        Offloaded and compiled networks of a diffusers pipeline belong to the caller and stay as they are. Returns the
        new dtype, bfloat16 after float16 and else float32; None if nothing was converted.
        """
        from clipgen.models.without_hooks import is_wrapped

        networks = [self.denoiser, *(text_encoder.model for text_encoder in self.text_encoders)]
        networks = [network for network in networks if not is_wrapped(network)]
        wider = wider_dtype(self.denoiser.dtype, self.denoiser.device) if networks else None
        if wider is not None:
            for network in networks:
                _convert(network, wider)
        return wider

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


def _convert(network: Any, dtype: torch.dtype) -> None:
    """Converts the weights of a network, and the dtype that quantised layers compute in."""
    import torch

    network.to(dtype)
    for layer in network.modules():  # diffusers' GGUF layers convert their weights at each use
        if isinstance(vars(layer).get("compute_dtype"), torch.dtype):
            layer.compute_dtype = dtype
