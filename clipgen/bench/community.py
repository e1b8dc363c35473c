"""CLIP guidance as diffusers' community pipeline `clip_guided_stable_diffusion` computes it, as a baseline for timing.

The original fails with transformers 5, so this module implements the same computation: at each step a second forward
pass of the denoiser with a graph, the full VAE decoder, random cutouts, and the gradient of the squared spherical
distance through all of them.
"""

from __future__ import annotations

from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.families import Conditioning, Family
from clipgen.sampling.loop import initial_noise, make_generators
from clipgen.sampling.make_scheduler import make_scheduler
from clipgen.sampling.prediction import inject, noise_level, read_prediction_type, recover_x0
from clipgen.settings.settings import Settings

CLIP_GUIDANCE_SCALE = 100.0  # the community pipeline's default


class CommunityGuidance:
    """Generates one image per call from fixed settings, guided like the community pipeline.

    `conditioning` is the pair (prompt, negative prompt) as the family's denoiser takes it.
    """

    def __init__(
        self,
        family: Family,
        encoder: ClipEncoder,
        conditioning: tuple[Conditioning, Conditioning],
        settings: Settings,
    ) -> None:
        self.family, self.encoder, self.settings = family, encoder, settings
        self.prompt, self.negative = conditioning
        self.target = encoder.text_features([settings.prompt])
        self.prediction = read_prediction_type(family.scheduler_config)

    @torch.no_grad()
    def generate(self, cutouts: int) -> Tensor:
        """Returns one image [1, 3, H, W] in [0, 1] for the seed of the settings."""
        settings, family = self.settings, self.family
        assert settings.seed is not None
        assert settings.steps is not None
        scheduler = make_scheduler("ddim", family.scheduler_config, settings.steps, family.vae.device)
        shape = family.latent_shape(settings.width or 0, settings.height or 0)
        latents = initial_noise(make_generators([settings.seed]), shape).to(family.vae.device)
        rng = torch.Generator().manual_seed(settings.seed)
        both = {name: torch.cat([self.negative[name], value]) for name, value in self.prompt.items()}
        for timestep in scheduler.timesteps:
            # classifier-free guidance
            uncond, cond = family.predict(torch.cat([latents, latents]), timestep, both).chunk(2)
            model_output = uncond + (settings.guidance_scale or 1.0) * (cond - uncond)
            # CLIP guidance: the original adds sqrt(1 - alpha_bar) * gradient to the predicted noise; as a correction
            # of x0 that is -(sigma^2 / alpha) * gradient, which is valid for every prediction type
            level = noise_level(scheduler, timestep)
            gradient = self._gradient(latents, timestep, scheduler, cutouts, rng)
            if level.alpha > 0:
                correction = -(level.sigma**2 / level.alpha) * gradient
                model_output = inject(model_output, correction, level, self.prediction)
            latents = scheduler.step(model_output, timestep, latents, return_dict=False)[0]
        return family.decode(latents).clamp(0, 1)

    @torch.enable_grad()
    def _gradient(
        self, latents: Tensor, timestep: Tensor, scheduler: object, cutouts: int, rng: torch.Generator
    ) -> Tensor:
        """Returns the gradient [1, C, h, w] of the CLIP loss with respect to the latents."""
        latents = latents.detach().requires_grad_()
        level = noise_level(scheduler, timestep)
        x0 = recover_x0(self.family.predict(latents, timestep, self.prompt), latents, level, self.prediction)
        blend = level.sigma * x0 + (1 - level.sigma) * latents  # as the original: less of x0 when there is less noise
        crops = _random_crops(self.family.decode(blend).clamp(0, 1), cutouts, self.encoder.image_size, rng)
        distances = (self.encoder.image_features(crops) - self.target).norm(dim=-1)
        loss = (2 * torch.asin(distances / 2).square()).mean() * CLIP_GUIDANCE_SCALE
        return torch.autograd.grad(loss, latents)[0]


def _random_crops(pixels: Tensor, count: int, side: int, rng: torch.Generator) -> Tensor:
    """Returns random square crops [count, 3, side, side] of an image [1, 3, H, W].

    Each crop is half to all of the shorter side.
    """
    height, width = pixels.shape[-2:]
    shorter, crops = min(height, width), []
    for scale, down, right in torch.rand(count, 3, generator=rng).tolist():
        size = ceil(shorter * (0.5 + 0.5 * scale))
        top, left = int(down * (height - size)), int(right * (width - size))
        crops.append(F.adaptive_avg_pool2d(pixels[..., top : top + size, left : left + size], side))
    return torch.cat(crops)
