"""The denoiser of storybook: diffusers' UNet2DConditionModel on latents, and the text encoder that tells it the prompt.

The text encoder learns with the UNet, from wide random token embeddings that keep every two words apart. CLIP's own
text tower, after its few minutes, puts things of one colour at one place (cat and hamburger at a cosine of .99): a UNet
on its states learnt colours and no shapes (LOG.md). v-prediction (Salimans & Ho 2022) with zero terminal SNR (Lin et
al. 2023), 10 % empty captions for classifier-free guidance. All timesteps have the same weight; the noisy ones, where
shapes are decided, are drawn more often, and each batch spreads evenly over them. Min-SNR weights (Hang et al. 2023)
all but leave them out.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from clipgen.train.clip_configs import WORD_SPREAD, text_config
from clipgen.train.data import Pictures, Renders, held_back
from clipgen.train.vae import to_image
from clipgen.world.contact_sheet import contact_sheet
from clipgen.world.scene import Scene

EMPTY_SHARE = 0.1
FRESH_SHARE = 0.25
HELD_BACK = 128  # the last pictures of the renders are never trained on
FIRST_LEAD = 1.5  # pictures of the first things alone, to each other one
NOISY = 0.6  # timesteps are u^NOISY of an even u: 1 is even, less is noisier
EMPHASIS = 3.0  # weight of an error where a thing stands, to that of the ground around it, which is learnt first
MEASURED_AT = (100, 300, 500, 700, 900)  # timesteps of the held-back errors
PROMPTS = (
    "a fox in snow", "a cat on a beach", "a rocket in space", "an owl at night", "two pizzas on a table",
    "a red car in the city", "a penguin in the forest", "a castle in the mountains, watercolour",
)  # fmt: skip


def build_unet(text_width: int, channels: tuple[int, ...], side: int) -> UNet2DConditionModel:
    """Builds the untrained denoiser of latents [B, 8, side, side] for text states [B, T, text_width]."""
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=8,
        out_channels=8,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=tuple(max(2, c // 64) for c in channels),
        cross_attention_dim=text_width,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Builds the untrained text encoder, of the sizes of CLIP's text tower."""
    text_encoder = CLIPTextModel(CLIPTextConfig(**text_config(tokenizer)))
    nn.init.normal_(text_encoder.embeddings.token_embedding.weight, std=WORD_SPREAD)
    return text_encoder


def build_scheduler() -> DDIMScheduler:
    """Builds the noise schedule that training and sampling share."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True,
        steps_offset=1,
    )  # fmt: skip


class Denoiser(nn.Module):
    """UNet and text encoder, which are trained as one."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def states(self, ids: Tensor) -> Tensor:
        """Returns text states [B, T, D] of token ids [B, T]."""
        states: Tensor = self.text_encoder(ids).last_hidden_state
        return states

    def forward(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """Returns the prediction [B, C, h, w] in float32."""
        predicted: Tensor = self.unet(noisy, timesteps, encoder_hidden_states=states).sample
        return predicted.float()

    def save_pretrained(self, folder: Path) -> None:
        """Writes the UNet into a folder and the text encoder beside it, as a storybook folder has them."""
        self.unet.save_pretrained(folder)
        self.text_encoder.save_pretrained(folder.parent / "text_encoder")

    @classmethod
    def from_pretrained(cls, folder: Path) -> Denoiser:
        """Reads what `save_pretrained` wrote."""
        text_encoder = CLIPTextModel.from_pretrained(folder.parent / "text_encoder")
        return cls(UNet2DConditionModel.from_pretrained(folder), text_encoder)


class LatentStore:
    """Latents of renders, encoded when first asked for and kept; a batch takes some new ones and repeats others.

    FIRST_LEAD new ones to each other one show nothing but the `first` things, as long as there are such.
    """

    def __init__(
        self, vae: AutoencoderTiny, renders: Pictures, scaling_factor: float, rng: np.random.Generator,
        first: Collection[str] = (), fresh: int = 0, *, held_back: int,
    ) -> None:  # fmt: skip
        self.vae, self.renders, self.scale, self.rng, self.fresh = vae.eval(), renders, scaling_factor, rng, fresh
        order = rng.permutation(len(renders) - held_back)
        self.order = _first_in_front(renders, order, first) if isinstance(renders, Renders) else order
        self.latents = torch.empty(0)
        self.filled = 0

    def batch(self, size: int) -> tuple[npt.NDArray[np.int64], Tensor]:
        """Returns indices into the renders and their latents [size, C, h, w]."""
        fresh = size if self.filled < 4 * size else self.fresh or max(1, round(FRESH_SHARE * size))
        fresh = min(fresh, len(self.order) - self.filled)
        places = np.concatenate(
            [np.arange(self.filled, self.filled + fresh), self.rng.integers(0, max(self.filled, 1), size - fresh)]
        )
        if fresh:
            self._encode(fresh)
        return self.order[places], self.latents[places].float()

    def _encode(self, count: int) -> None:
        new = self.encode(self.order[self.filled : self.filled + count])
        if not self.filled:
            self.latents = torch.empty(len(self.order), *new.shape[1:], dtype=torch.float16)
        self.latents[self.filled : self.filled + count] = new.half().cpu()
        self.filled += count

    @torch.no_grad()
    def encode(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Returns the scaled latents of some pictures [B, C, h, w], not kept."""
        pictures = self.renders.images(indices).to(self.vae.device, memory_format=torch.channels_last)
        latents: Tensor = self.vae.encode(pictures).latents * self.scale
        return latents


def _first_in_front(renders: Renders, order: npt.NDArray[np.int64], first: Collection[str]) -> npt.NDArray[np.int64]:
    """Reorders pictures so that those of the `first` things alone come early, FIRST_LEAD to each other one."""
    known = frozenset(first)
    chosen = np.array([all(thing.concept in known for thing in renders.scene(int(i)).things) for i in order])
    place = np.empty(len(order))
    place[chosen] = np.arange(chosen.sum()) / FIRST_LEAD
    place[~chosen] = np.arange((~chosen).sum())
    return order[np.argsort(place, kind="stable")]


class UnetPart:
    """Trains the denoiser on latents of renders and their captions."""

    def __init__(
        self, model: Denoiser, vae: AutoencoderTiny, tokenizer: CLIPTokenizer, renders: Pictures, batch: int,
        seed: int = 0, first: Collection[str] = (), prompts: Sequence[str] = PROMPTS,
    ) -> None:  # fmt: skip
        self.model = model
        self.vae, self.tokenizer, self.batch = vae, tokenizer, batch
        self.words = random.Random(seed)
        self.renders, self.scheduler = renders, build_scheduler()
        self.prompts, self.held_back = prompts, held_back(renders, HELD_BACK)
        rng, scale = np.random.default_rng(seed), vae.config.scaling_factor
        self.store = LatentStore(vae, renders, scale, rng, first, held_back=self.held_back)
        self.alphas = self.scheduler.alphas_cumprod

    def to(self, device: torch.device) -> None:
        """Moves the denoiser, and the autoencoder that feeds it, to a device.

        On CPUs attention is two plain products: over 64 places the gradient of the fused kernel takes ten times longer.
        """
        for module in (self.model, self.vae):
            module.to(device)
        if device.type == "cpu":
            self.model.unet.set_attn_processor(AttnProcessor())
            self.model.text_encoder.set_attn_implementation("eager")
        self.alphas = self.alphas.to(device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the weighted v-prediction loss of one batch."""
        indices, latents = self.store.batch(self.batch)
        texts = ["" if self.words.random() < EMPTY_SHARE else self.renders.caption(int(i), self.words) for i in indices]
        device = self.alphas.device
        even = (torch.randperm(self.batch, device=device) + torch.rand(self.batch, device=device)) / self.batch
        timesteps = (even**NOISY * len(self.alphas)).long().clamp(max=len(self.alphas) - 1)
        latents = latents.to(device)
        weights = self._weights(indices, latents.shape[-1])
        error = self._error(latents, torch.randn_like(latents), timesteps, self.states(texts), weights)
        return error, {"stored": self.store.filled}

    def _weights(self, indices: npt.NDArray[np.int64], side: int) -> Tensor | float:
        """Returns how much the errors of each place count; of pictures that nobody laid out all count alike."""
        if not isinstance(self.renders, Renders):
            return 1.0
        scenes = [self.renders.scene(int(i)) for i in indices]
        return emphasis(scenes, side).to(self.alphas.device)

    def _error(
        self, latents: Tensor, noise: Tensor, timesteps: Tensor, states: Tensor, weights: Tensor | float = 1.0
    ) -> Tensor:
        """Returns the weighted mean squared error of the predicted v = alpha noise - sigma x0."""
        a = self.alphas[timesteps][:, None, None, None]
        noisy, target = a.sqrt() * latents + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * latents
        error: Tensor = ((self.model(noisy, timesteps, states) - target).square() * weights).mean()
        return error

    def states(self, texts: Sequence[str]) -> Tensor:
        """Returns text states [B, T, D] of prompts, padded to the tokenizer's length as the pipeline pads them."""
        ids = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.model.states(ids.to(self.alphas.device)).float()

    def show(self, folder: Path) -> dict[str, float]:
        """Draws four seeds of each fixed prompt; measures the error on held-back latents at fixed noise."""
        texts = [prompt for prompt in self.prompts for _ in range(4)]
        pictures = sample(self.model.unet, self.vae, self.scheduler, self.states(texts), self.states([""] * len(texts)))
        contact_sheet([to_image(p) for p in pictures], texts).save(folder / "unet.png")
        return self._held_back_errors()

    def _held_back_errors(self) -> dict[str, float]:
        indices, words = np.arange(len(self.renders) - self.held_back, len(self.renders)), random.Random(0)
        latents = self.store.encode(indices)
        states = self.states([self.renders.caption(int(i), words) for i in indices])
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
        every = {t: torch.full((len(indices),), t, device=latents.device) for t in MEASURED_AT}
        return {f"v_{t}": self._error(latents, noise, timesteps, states).item() for t, timesteps in every.items()}


def emphasis(scenes: Sequence[Scene], side: int) -> Tensor:
    """Returns weights [B, 1, side, side] of mean 1: EMPHASIS times as much in the boxes of things as around them."""
    weights = torch.ones(len(scenes), 1, side, side)
    for place, scene in enumerate(scenes):
        for x, foot, height in (box for thing in scene.things for box in thing.boxes):
            top, bottom, left, right = (
                round(side * min(max(edge, 0.0), 1.0)) for edge in (foot - height, foot, x - height / 2, x + height / 2)
            )
            weights[place, :, top:bottom, left:right] = EMPHASIS
    return weights / weights.mean()


def sample(
    unet: UNet2DConditionModel, vae: AutoencoderTiny, scheduler: DDIMScheduler, states: Tensor, empty: Tensor,
    *, steps: int = 20, guidance_scale: float = 3.0, seed: int = 1,
) -> Tensor:  # fmt: skip
    """Draws one picture [B, 3, H, W] in [-1, 1] for each text state by DDIM."""
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    side: int = unet.config.sample_size
    latents = torch.randn(len(states), unet.config.in_channels, side, side, generator=generator).to(states.device)
    both = torch.cat([empty, states])
    for t in scheduler.timesteps:
        uncond, cond = unet(torch.cat([latents, latents]), t, encoder_hidden_states=both).sample.float().chunk(2)
        latents = scheduler.step(uncond + guidance_scale * (cond - uncond), t, latents).prev_sample
    return torch.cat([vae.decode(z / vae.config.scaling_factor).sample for z in latents.split(8)])
