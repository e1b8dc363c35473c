"""Training of the latent head, which predicts CLIP's image features from noisy latents: guidance without decoding."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

from clipgen.clip.latent_head import LatentHead
from clipgen.train.clip import ClipWithHeads
from clipgen.train.data import CachedFeatures, Indices, Renders, held_back
from clipgen.train.latents import LatentStore
from clipgen.train.unet import build_scheduler

FRESH = 12  # images per batch that are encoded for the first time
HELD_BACK = 512  # images that are measured and never trained on
HALF_NOISE = 0.5  # noise level at which the cosine is measured
SHARED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")


def build_latent_head(clip: CLIPModel, channels: int, side: int) -> CLIPVisionModelWithProjection:
    """Builds a head for latents [B, channels, side, side] from CLIP's image encoder, all but its patch embedding.

    The patches of the latents cover the same areas as those of the pixels, so only the patch embedding is new.
    """
    vision = clip.config.vision_config
    config = CLIPVisionConfig(
        **{name: getattr(vision, name) for name in SHARED}, projection_dim=clip.config.projection_dim,
        num_channels=channels + 1, image_size=side, patch_size=side * vision.patch_size // vision.image_size,
    )  # fmt: skip
    head = CLIPVisionModelWithProjection(config)
    weights = {name: value for name, value in clip.state_dict().items() if name.startswith("vision_model.")}
    weights = {name: value for name, value in weights.items() if "patch_embedding" not in name}
    head.load_state_dict(weights | {"visual_projection.weight": clip.visual_projection.weight}, strict=False)
    return head


class LatentHeadPart:
    """Trains on noisy latents of renders towards CLIP's features of the renders; captions are not needed."""

    def __init__(
        self, head: CLIPVisionModelWithProjection, clip: CLIPModel, tokenizer: CLIPTokenizer, vae: AutoencoderTiny,
        renders: Renders, batch: int, seed: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.head = head, LatentHead(head)
        self.clip, self.tokenizer, self.vae = ClipWithHeads(clip).eval(), tokenizer, vae
        self.renders, self.batch = renders, batch
        count = held_back(renders, HELD_BACK)
        self.measured = np.arange(len(renders) - count, len(renders))
        self.store = LatentStore(vae, renders, np.random.default_rng(seed), held_back=count, fresh=FRESH)
        self.image_features = CachedFeatures(self._image_features)
        self.alphas = build_scheduler().alphas_cumprod

    def to(self, device: torch.device) -> None:
        """Moves all networks to a device; on CPUs eager attention has the far cheaper gradient."""
        for module in (self.model, self.clip, self.vae):
            module.to(device)
        self.alphas = self.alphas.to(device)
        if device.type == "cpu":
            self.model.set_attn_implementation("eager")

    def loss(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Returns 1 - cosine between predicted and true features, over a batch at evenly spread timesteps."""
        indices, latents = self.store.batch(self.batch)
        target = self.image_features(indices).to(self.alphas.device)
        latents = latents.to(self.alphas.device)
        timesteps = (torch.randperm(self.batch) * len(self.alphas) // self.batch).to(self.alphas.device)
        sigma = (1 - self.alphas[timesteps]).sqrt()
        cosine = (self._predict(latents, sigma, torch.randn_like(latents)) * target).sum(dim=-1)
        return 1 - cosine.mean(), {"cosine": cosine.mean().item(), "stored": self.store.filled}

    def _predict(self, latents: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        level = sigma.view(-1, 1, 1, 1)
        return self.head.features((1 - level.square()).sqrt() * latents + level * noise, sigma)

    def _image_features(self, indices: Indices) -> Tensor:
        """Returns CLIP's unit features [B, D] of some renders."""
        return self.clip.images(self.renders.images(indices).to(self.alphas.device))[0]

    def evaluate(self, folder: Path) -> dict[str, float]:
        """Returns R@1 of held-back captions from clean latents and from CLIP, and the cosine at HALF_NOISE."""
        words = random.Random(0)
        captions = [self.renders.caption(int(i), words) for i in self.measured]
        ids = self.tokenizer(captions, padding=True, truncation=True, return_tensors="pt").input_ids
        texts = self.clip.texts(ids.to(self.alphas.device))
        images = self.image_features(self.measured).to(self.alphas.device)
        latents = torch.cat([self.store.encode(part) for part in np.array_split(self.measured, 16)]).to(texts)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
        clean, half = (
            self._predict(latents, torch.full((len(texts),), sigma).to(texts), noise) for sigma in (0.0, HALF_NOISE)
        )
        target = torch.arange(len(texts), device=texts.device)
        by_head, by_clip = (((f @ texts.T).argmax(dim=1) == target).float().mean().item() for f in (clean, images))
        return {"val_r@1": by_head, "clip_r@1": by_clip, "cosine_half": (half * images).sum(dim=-1).mean().item()}
