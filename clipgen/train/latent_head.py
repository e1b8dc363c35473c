"""The head that guesses CLIP's features from noisy latents, for guidance that decodes nothing."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

from clipgen.clip.latent_head import LatentHead
from clipgen.train.clip import Anchored, resized
from clipgen.train.data import Renders, Seen, held_back
from clipgen.train.latents import LatentStore
from clipgen.train.unet import build_scheduler

FRESH = 12  # new pictures a batch, as long as there are such
HELD_BACK = 512  # pictures that are measured and never trained on
HALF_NOISE = 0.5  # the noise level at which the guess is measured
SHARED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")


def build_latent_head(clip: CLIPModel, channels: int, side: int) -> CLIPVisionModelWithProjection:
    """Builds a head for latents [B, channels, side, side] as CLIP's own picture tower, all but its first layer.

    Patches of latents lie where the tower's patches of pixels lie, so only what stands for a patch is learnt anew.
    """
    tower = clip.config.vision_config
    config = CLIPVisionConfig(
        **{name: getattr(tower, name) for name in SHARED}, projection_dim=clip.config.projection_dim,
        num_channels=channels + 1, image_size=side, patch_size=side * tower.patch_size // tower.image_size,
    )  # fmt: skip
    head = CLIPVisionModelWithProjection(config)
    known = {name: value for name, value in clip.state_dict().items() if name.startswith("vision_model.")}
    known = {name: value for name, value in known.items() if "patch_embedding" not in name}
    head.load_state_dict(known | {"visual_projection.weight": clip.visual_projection.weight}, strict=False)
    return head


class LatentHeadPart:
    """Trains on noised latents of renders towards what CLIP sees in the renders; no captions are needed."""

    def __init__(
        self, head: CLIPVisionModelWithProjection, clip: CLIPModel, tokenizer: CLIPTokenizer, vae: AutoencoderTiny,
        renders: Renders, batch: int, seed: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.head = head, LatentHead(head)
        self.clip, self.tokenizer, self.vae = Anchored(clip).eval(), tokenizer, vae
        self.renders, self.batch = renders, batch
        kept = held_back(renders, HELD_BACK)
        self.measured = np.arange(len(renders) - kept, len(renders))
        self.store = LatentStore(vae, renders, np.random.default_rng(seed), held_back=kept, fresh=FRESH)
        self.seen = Seen(self._look)
        self.alphas = build_scheduler().alphas_cumprod

    def to(self, device: torch.device) -> None:
        """Moves the head, and what feeds it, to a device; on CPUs attention is two plain products."""
        for module in (self.model, self.clip, self.vae):
            module.to(device)
        self.alphas = self.alphas.to(device)
        if device.type == "cpu":
            self.model.set_attn_implementation("eager")

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns 1 - cosine between guess and CLIP, averaged over a batch at timesteps spread evenly."""
        indices, latents = self.store.batch(self.batch)
        wanted = self.seen.of(indices).to(self.alphas.device)
        latents = latents.to(self.alphas.device)
        timesteps = (torch.randperm(self.batch) * len(self.alphas) // self.batch).to(self.alphas.device)
        sigma = (1 - self.alphas[timesteps]).sqrt()
        cosine = (self._guess(latents, sigma, torch.randn_like(latents)) * wanted).sum(dim=-1)
        return 1 - cosine.mean(), {"cosine": cosine.mean().item(), "stored": self.store.filled}

    def _guess(self, latents: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        level = sigma.view(-1, 1, 1, 1)
        return self.head.features((1 - level.square()).sqrt() * latents + level * noise, sigma)

    def _look(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Returns CLIP's unit vectors [B, D] of some renders."""
        return self.clip.images(resized(self.renders.images(indices).to(self.alphas.device), self.clip.clip))[0]

    def show(self, folder: Path) -> dict[str, float]:
        """Measures on renders held back: R@1 of their captions by clean latents and by CLIP, cosine at half noise."""
        words = random.Random(0)
        texts = [self.renders.caption(int(i), words) for i in self.measured]
        ids = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids
        told = self.clip.texts(ids.to(self.alphas.device))
        seen = self.seen.of(self.measured).to(self.alphas.device)
        latents = torch.cat([self.store.encode(part) for part in np.array_split(self.measured, 16)]).to(told)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
        clean, half = (self._guess(latents, torch.full((len(told),), s).to(told), noise) for s in (0.0, HALF_NOISE))
        own = torch.arange(len(told), device=told.device)
        by_head, by_clip = (((f @ told.T).argmax(dim=1) == own).float().mean().item() for f in (clean, seen))
        return {"val_r@1": by_head, "clip_r@1": by_clip, "cosine_half": (half * seen).sum(dim=-1).mean().item()}
