"""Training of a captioner, ClipCap or CoCa, on the features of a frozen CLIP."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, GPT2Config

from clipgen.captioning.clip_captioner import MAX_NEW_TOKENS
from clipgen.captioning.clipcap import ClipCap, ClipCapConfig
from clipgen.captioning.coca import Coca, CocaConfig
from clipgen.clip.encoder import ClipEncoder
from clipgen.train.data import CachedFeatures, Images, Indices, Renders, held_back
from clipgen.train.loop import Budget
from clipgen.world.grammar import plain_caption

BUDGET = Budget(1, 64, 1e-3, warmup=200, average=0.995, weight_decay=0.01)
HELD_BACK = 256  # images that are measured and never trained on
PREFIX = 6  # token embeddings that ClipCap maps the image feature to
QUERIES = 64  # of CoCa's attention pooling
IGNORED = -100


def build_captioner(tokenizer: CLIPTokenizer, features: int, mapper: str = "mlp") -> ClipCap:
    """Builds an untrained ClipCap for image features [B, features]; it writes tokens of CLIP's tokenizer."""
    decoder = _decoder(tokenizer, PREFIX + MAX_NEW_TOKENS + 1)
    return ClipCap(ClipCapConfig(features=features, prefix=PREFIX, mapper=mapper, decoder=decoder))


def build_coca(tokenizer: CLIPTokenizer, states: int) -> Coca:
    """Builds an untrained CoCa for patch states [B, N, states]; it writes tokens of CLIP's tokenizer."""
    decoder = _decoder(tokenizer, MAX_NEW_TOKENS + 2, add_cross_attention=True)
    return Coca(CocaConfig(states=states, queries=QUERIES, decoder=decoder))


def _decoder(tokenizer: CLIPTokenizer, longest: int, **more: Any) -> GPT2Config:
    return GPT2Config(
        vocab_size=len(tokenizer), n_positions=longest, n_embd=192, n_layer=4, n_head=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **more,
    )  # fmt: skip


class CaptionerPart:
    """Trains on a frozen CLIP's features of images and on captions drawn at random."""

    def __init__(
        self, model: ClipCap | Coca, clip: CLIPModel, tokenizer: CLIPTokenizer, preprocessor: Mapping[str, Any],
        data: Images, batch: int, seed: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.clip, self.tokenizer, self.data = model, clip.eval(), tokenizer, data
        self.preprocessor = preprocessor
        self.trained_on = len(data) - held_back(data, HELD_BACK)
        self.batch = min(batch, self.trained_on)
        self.numbers, self.words = np.random.default_rng(seed), random.Random(seed)
        self.cache = CachedFeatures(self._compute)

    def to(self, device: torch.device) -> None:
        """Moves the captioner and its CLIP to a device; on CPUs eager attention has the far cheaper gradient."""
        self.model.to(device)
        self.clip.to(device)
        if device.type == "cpu":
            self.model.decoder.set_attn_implementation("eager")
        self.encoder = ClipEncoder("own", self.clip, self.tokenizer, self.preprocessor)

    def loss(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Returns the mean cross entropy of the captions' tokens."""
        indices = self.numbers.integers(0, self.trained_on, self.batch)
        return self._loss(indices, self._captions(indices, self.words)), {}

    def _captions(self, indices: Indices, words: random.Random) -> list[str]:
        """Returns the captions to learn; for renders the plain caption, which names everything and no more."""
        if isinstance(self.data, Renders):
            return [plain_caption(self.data.scene(int(i))) for i in indices]
        return [self.data.caption(int(i), words) for i in indices]

    def _loss(self, indices: Indices, captions: list[str]) -> Tensor:
        return caption_loss(self.model, self._features(indices), captions, self.tokenizer)

    @torch.no_grad()
    def _features(self, indices: Indices) -> Tensor:
        """Returns the captioner's input for some images, [B, ...]; single vectors per image are cached."""
        device = self.encoder.model.device
        return self.cache(indices).to(device) if self.model.cache_features else self._compute(indices)

    def _compute(self, indices: Indices) -> Tensor:
        return self.model.encode_images(self.encoder, (self.data.images(indices) + 1) / 2)

    def evaluate(self, folder: Path) -> dict[str, float]:
        """Writes captions of held-back images; returns their loss and the share of things that are named."""
        indices, words = np.arange(self.trained_on, len(self.data)), random.Random(0)
        captions = self._captions(indices, words)
        written = self.model.caption(self._features(indices[:64]), self.tokenizer)
        lines = [f"{true}\n    {own}" for true, own in zip(captions, written, strict=False)]
        (folder / "captions.txt").write_text("\n".join(lines) + "\n", "utf-8")
        return {"val_loss": self._loss(indices, captions).item(), **self._named(indices, written)}

    def _named(self, indices: Indices, written: list[str]) -> dict[str, float]:
        """Returns the share of the things in renders that their captions name."""
        if not isinstance(self.data, Renders):
            return {}
        pairs = [
            (thing.concept, text)
            for i, text in zip(indices, written, strict=False)
            for thing in self.data.scene(int(i)).things
        ]
        return {"val_named": float(np.mean([concept in text for concept, text in pairs]))}


def caption_loss(head: ClipCap | Coca, features: Tensor, captions: Sequence[str], tokenizer: CLIPTokenizer) -> Tensor:
    """Returns the mean cross entropy of captions' tokens, end token included, given the features of their images."""
    encoding = tokenizer(list(captions), padding=True, truncation=True, max_length=MAX_NEW_TOKENS, return_tensors="pt")
    ids: Tensor = encoding.input_ids[:, 1:].to(features.device)  # the image takes the place of the start token
    logits = head(features, ids)
    return F.cross_entropy(logits.flatten(0, 1).float(), _without_padding(ids, tokenizer.eos_token_id))


def _without_padding(ids: Tensor, end: int) -> Tensor:
    """Returns the target tokens [B * T]; everything after the first end token is ignored."""
    ended = (ids == end).cumsum(dim=1)
    return ids.masked_fill((ended > 1) | ((ended == 1) & (ids != end)), IGNORED).flatten()
