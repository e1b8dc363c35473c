"""The usual way to guide by CLIP, to measure against: what diffusers' community pipeline for it computes at each step.

Written anew, as the original fails with transformers 5. A second pass through the denoiser keeps its graph, the full
decoder shows CLIP some random cutouts, and the gradient of the squared angle goes back through all of it.
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

STRENGTH = 100.0  # its clip_guidance_scale


class CommunityGuidance:
    """Draws one prompt with a loaded model the way the community pipeline does; `told` with and without."""

    def __init__(
        self, family: Family, encoder: ClipEncoder, told: tuple[Conditioning, Conditioning], settings: Settings
    ) -> None:
        self.family, self.encoder, self.settings = family, encoder, settings
        self.prompt, self.nothing = told
        self.target = encoder.text_features([settings.prompt])
        self.prediction = read_prediction_type(family.scheduler_config)

    @torch.no_grad()
    def draw(self, cutouts: int) -> Tensor:
        """Returns one picture [1, 3, H, W] in [0, 1] of the settings' seed."""
        settings, family = self.settings, self.family
        assert settings.seed is not None
        assert settings.steps is not None
        scheduler = make_scheduler("ddim", family.scheduler_config, settings.steps, family.vae.device)
        shape = family.latent_shape(settings.width or 0, settings.height or 0)
        latents = initial_noise(make_generators([settings.seed]), shape).to(family.vae.device)
        random = torch.Generator().manual_seed(settings.seed)
        both = {name: torch.cat([self.nothing[name], told]) for name, told in self.prompt.items()}
        for timestep in scheduler.timesteps:
            uncond, cond = family.predict(torch.cat([latents, latents]), timestep, both).chunk(2)
            output = uncond + (settings.guidance_scale or 1.0) * (cond - uncond)
            level = noise_level(scheduler, timestep)
            gradient = self._gradient(latents, timestep, scheduler, cutouts, random)
            if level.alpha > 0:  # the same move as its own formula for noise predictions, whatever is predicted
                moved = -(level.sigma**2 / level.alpha) * gradient
                output = inject(output, moved, level, self.prediction)
            latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
        return family.decode(latents).clamp(0, 1)

    @torch.enable_grad()
    def _gradient(
        self, latents: Tensor, timestep: Tensor, scheduler: object, cutouts: int, random: torch.Generator
    ) -> Tensor:
        """Returns the gradient [1, C, h, w] of CLIP's loss at the latents, through denoiser, decoder and cutouts."""
        leaf = latents.detach().requires_grad_()
        level = noise_level(scheduler, timestep)
        x0 = recover_x0(self.family.predict(leaf, timestep, self.prompt), leaf, level, self.prediction)
        shown = level.sigma * x0 + (1 - level.sigma) * leaf
        seen = _cutouts(self.family.decode(shown).clamp(0, 1), cutouts, self.encoder.image_size, random)
        chords = (self.encoder.image_features(seen) - self.target).norm(dim=-1)
        loss = (2 * torch.asin(chords / 2).square()).mean() * STRENGTH
        return torch.autograd.grad(loss, leaf)[0]


def _cutouts(pixels: Tensor, count: int, side: int, random: torch.Generator) -> Tensor:
    """Returns squares [count, 3, side, side] at random places of a picture [1, 3, H, W], half as large to as large."""
    height, width = pixels.shape[-2:]
    short, cuts = min(height, width), []
    for part, down, right in torch.rand(count, 3, generator=random).tolist():
        size = ceil(short * (0.5 + 0.5 * part))
        top, left = int(down * (height - size)), int(right * (width - size))
        cuts.append(F.adaptive_avg_pool2d(pixels[..., top : top + size, left : left + size], side))
    return torch.cat(cuts)
