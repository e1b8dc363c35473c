"""The denoiser of storybook: diffusers' UNet2DConditionModel on latents, conditioned on storybook's own CLIP.

Cross-attention reads the last hidden states of CLIP's text encoder, as in Stable Diffusion. The text encoder is frozen.
v-prediction (Salimans & Ho 2022, arXiv 2202.00512) with zero terminal SNR (Lin et al. 2023, arXiv 2305.08891), 10%
empty captions for classifier-free guidance (Ho & Salimans 2022). All timesteps have the same weight; each batch spreads
evenly over them. Noisy ones, where shapes are decided, are drawn more often in the first part of a run.

Most captions name every detail at first, so that no detail of an image is left to chance; later most are as short as
prompts are.

Every concept is shown equally often at first. Each time samples are drawn, CLIP names some of them, and concepts that
it does not recognise are shown up to four times as often as those that it does (balance.py).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from clipgen.train.balance import ConceptBalance
from clipgen.train.data import Images, Indices, Renders, held_back
from clipgen.train.latents import LatentStore
from clipgen.train.vae import to_image
from clipgen.world.contact_sheet import contact_sheet
from clipgen.world.grammar import indefinite
from clipgen.world.scene import Scene

EMPTY_SHARE = 0.1
HELD_BACK = 128  # the last images of the renders are never trained on
NOISY, NOISY_UNTIL = 0.6, 0.6  # up to this share of the run timesteps are u^NOISY of a uniform u, uniform afterwards
COMPLETE, COMPLETE_UNTIL = 0.7, 0.7  # up to this share of the run, this share of the captions names every detail
EMPHASIS = 3.0  # weight of an error inside the box of a thing, relative to the background, which is learnt first
MEASURED_AT = (100, 300, 500, 700, 900)  # timesteps of the held-back errors
NAMED_PER_SHEET = 48  # concepts that CLIP names whenever samples are drawn
NAMING_STEPS = 10
PROMPTS = (
    "a fox in snow", "a cat on a beach", "a rocket in space", "an owl at night", "two pizzas on a table",
    "a red car in the city", "a hedgehog in the forest", "a camel in the desert",
)  # fmt: skip


def build_unet(text_width: int, channels: tuple[int, ...], side: int, latent_channels: int) -> UNet2DConditionModel:
    """Builds the untrained denoiser of latents [B, latent_channels, side, side] for text states [B, T, text_width]."""
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=tuple(max(2, c // 64) for c in channels),
        cross_attention_dim=text_width,
        norm_num_groups=16,
    )


def text_encoder_of(clip: CLIPModel) -> CLIPTextModel:
    """Returns a copy of CLIP's text encoder as Stable Diffusion pipelines hold it: without the projection."""
    text_encoder = CLIPTextModel(clip.config.text_config)
    text_encoder.load_state_dict(clip.text_model.state_dict())
    return text_encoder.eval().requires_grad_(False)


def build_scheduler() -> DDIMScheduler:
    """Builds the noise schedule that training and sampling share."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True,
        steps_offset=1,
    )  # fmt: skip


class UnetPart:
    """Trains the denoiser on latents of images and their captions.

    With a `clip` and renders, the concepts that CLIP fails to name in samples are shown more often.
    """

    def __init__(
        self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, vae: AutoencoderTiny, tokenizer: CLIPTokenizer,
        data: Images, batch: int, seed: int = 0, *, clip: CLIPModel | None = None, prompts: Sequence[str] = PROMPTS,
    ) -> None:  # fmt: skip
        self.model, self.text_encoder, self.vae, self.clip = unet, text_encoder, vae.eval(), clip
        self.tokenizer, self.batch, self.data, self.prompts = tokenizer, batch, data, prompts
        self.words, self.scheduler = random.Random(seed), build_scheduler()
        self.alphas = self.scheduler.alphas_cumprod
        self.held_back = held_back(data, HELD_BACK)
        rng = np.random.default_rng(seed)
        self.balance = ConceptBalance(data, len(data) - self.held_back, rng) if isinstance(data, Renders) else None
        self.store = LatentStore(vae, data, rng, held_back=self.held_back, choose=self.balance)

    def to(self, device: torch.device) -> None:
        """Moves all networks to a device.

        On CPUs attention is two plain products: over 64 positions the gradient of the fused kernel takes ten times
        longer.
        """
        for module in (self.model, self.text_encoder, self.vae, self.clip):
            if module is not None:
                module.to(device)
        if device.type == "cpu":
            self.model.set_attn_processor(AttnProcessor())
            self.text_encoder.set_attn_implementation("eager")
        self.alphas = self.alphas.to(device)

    def loss(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Returns the weighted v-prediction loss of one batch."""
        indices, latents = self.store.batch(self.batch)
        complete = COMPLETE if progress < COMPLETE_UNTIL else 0.0
        texts = [self._caption(int(i), complete) for i in indices]
        device = self.alphas.device
        uniform = (torch.randperm(self.batch, device=device) + torch.rand(self.batch, device=device)) / self.batch
        noisy = uniform ** (NOISY if progress < NOISY_UNTIL else 1.0)
        timesteps = (noisy * len(self.alphas)).long().clamp(max=len(self.alphas) - 1)
        latents = latents.to(device)
        weights = self._weights(indices, latents.shape[-1])
        error = self._error(latents, torch.randn_like(latents), timesteps, self.states(texts), weights)
        return error, {"stored": self.store.filled}

    def _caption(self, index: int, complete: float) -> str:
        """Returns a caption of an image for training: empty, complete with this probability, or short."""
        if self.words.random() < EMPTY_SHARE:
            return ""
        return self.data.caption(index, self.words, complete=self.words.random() < complete)

    def _weights(self, indices: Indices, side: int) -> Tensor | float:
        """Returns the weight of the error at each latent position; 1 for images whose layout is unknown."""
        if not isinstance(self.data, Renders):
            return 1.0
        return emphasis([self.data.scene(int(i)) for i in indices], side).to(self.alphas.device)

    def _error(
        self, latents: Tensor, noise: Tensor, timesteps: Tensor, states: Tensor, weights: Tensor | float = 1.0
    ) -> Tensor:
        """Returns the weighted mean squared error of the predicted v = alpha noise - sigma x0."""
        a = self.alphas[timesteps][:, None, None, None]
        noisy, target = a.sqrt() * latents + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * latents
        v = self.model(noisy, timesteps, encoder_hidden_states=states).sample.float()
        error: Tensor = ((v - target).square() * weights).mean()
        return error

    @torch.no_grad()
    def states(self, texts: Sequence[str]) -> Tensor:
        """Returns text states [B, T, D] of prompts, padded to the tokenizer's length as the pipeline pads them."""
        ids = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        states: Tensor = self.text_encoder(ids.to(self.alphas.device)).last_hidden_state.float()
        return states

    def evaluate(self, folder: Path) -> dict[str, float]:
        """Draws four samples of each fixed prompt; measures the error on held-back latents and what CLIP recognises."""
        texts = [prompt for prompt in self.prompts for _ in range(4)]
        contact_sheet([to_image(image) for image in self._samples(texts)], texts).save(folder / "unet.png")
        return self._held_back_errors() | self._recognised(folder)

    def _samples(self, texts: Sequence[str], steps: int = 20) -> Tensor:
        """Returns one image [B, 3, H, W] in [-1, 1] per prompt."""
        empty = self.states([""] * len(texts))
        return sample(self.model, self.vae, self.scheduler, self.states(texts), empty, steps=steps)

    def _recognised(self, folder: Path) -> dict[str, float]:
        """Draws some concepts, lets CLIP name them, and shifts the balance towards those that it does not name."""
        if self.clip is None or self.balance is None:
            return {}
        concepts = self.balance.due(NAMED_PER_SHEET)
        images = self._samples([indefinite(concept) for concept in concepts], NAMING_STEPS)
        contact_sheet([to_image(image) for image in images], concepts).save(folder / "concepts.png")
        side = self.clip.config.vision_config.image_size
        images = torch.nn.functional.interpolate(images.clamp(-1, 1), size=side, mode="area")
        ids = self.tokenizer([indefinite(name) for name in self.balance.concepts], padding=True, return_tensors="pt")
        image_features = self.clip.get_image_features(images).pooler_output
        text_features = self.clip.get_text_features(ids.input_ids.to(images.device)).pooler_output
        named = (image_features @ torch.nn.functional.normalize(text_features, dim=-1).T).argmax(dim=1).tolist()
        right = [self.balance.concepts[k] == concept for k, concept in zip(named, concepts, strict=True)]
        self.balance.update(concepts, right)
        return {"named": float(np.mean(right)), "named_average": self.balance.average}

    def _held_back_errors(self) -> dict[str, float]:
        indices, words = np.arange(len(self.data) - self.held_back, len(self.data)), random.Random(0)
        latents = self.store.encode(indices)
        states = self.states([self.data.caption(int(i), words) for i in indices])
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
        every = {t: torch.full((len(indices),), t, device=latents.device) for t in MEASURED_AT}
        return {f"v_{t}": self._error(latents, noise, timesteps, states).item() for t, timesteps in every.items()}


def emphasis(scenes: Sequence[Scene], side: int) -> Tensor:
    """Returns weights [B, 1, side, side] of mean 1: EMPHASIS times as much in the boxes of things as around them."""
    weights = torch.ones(len(scenes), 1, side, side)
    for row, scene in enumerate(scenes):
        for x, foot, height in (box for thing in scene.things for box in thing.boxes):
            top, bottom, left, right = (
                round(side * min(max(edge, 0.0), 1.0)) for edge in (foot - height, foot, x - height / 2, x + height / 2)
            )
            weights[row, :, top:bottom, left:right] = EMPHASIS
    return weights / weights.mean()


def sample(
    unet: UNet2DConditionModel, vae: AutoencoderTiny, scheduler: DDIMScheduler, states: Tensor, empty: Tensor,
    *, steps: int = 20, guidance_scale: float = 3.0, seed: int = 1,
) -> Tensor:  # fmt: skip
    """Draws one image [B, 3, H, W] in [-1, 1] for each text state by DDIM."""
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    side: int = unet.config.sample_size
    latents = torch.randn(len(states), unet.config.in_channels, side, side, generator=generator).to(states.device)
    both = torch.cat([empty, states])
    for t in scheduler.timesteps:
        uncond, cond = unet(torch.cat([latents, latents]), t, encoder_hidden_states=both).sample.float().chunk(2)
        latents = scheduler.step(uncond + guidance_scale * (cond - uncond), t, latents).prev_sample
    return torch.cat([vae.decode(z / vae.config.scaling_factor).sample for z in latents.split(8)])
