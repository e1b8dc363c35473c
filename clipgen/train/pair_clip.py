"""Fine-tunes a CLIP on captioned images with the symmetric InfoNCE loss (Radford et al. 2021, arXiv 2103.00020)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from clipgen.clip.encoder import ClipEncoder
from clipgen.hashing import sha256_of
from clipgen.train.captioned import Captioned
from clipgen.train.data import held_back
from clipgen.train.gathered import gathered

HELD_BACK = 256  # images that are never trained on, at most


class PairPart:
    """Trains a CLIP on images and their captions; rows of a batch with a common caption are no negatives."""

    def __init__(
        self, clip: CLIPModel, tokenizer: CLIPTokenizer, preprocessor: Mapping[str, Any], data: Captioned, batch: int,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.preprocessor, self.data = clip, tokenizer, preprocessor, data
        self.trained_on = len(data) - held_back(data, HELD_BACK)
        self.batch = min(batch, self.trained_on)
        self.numbers, self.words = np.random.default_rng(seed), random.Random(seed)

    def to(self, device: torch.device) -> None:
        """Moves both encoders to a device; on CPUs eager attention has the far cheaper gradient."""
        self.model.to(device)
        if device.type == "cpu":
            self.model.set_attn_implementation("eager")
        self.encoder = ClipEncoder("own", self.model, self.tokenizer, self.preprocessor)

    def loss(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Returns the symmetric contrastive loss of one batch over all processes."""
        indices = self.numbers.permutation(self.trained_on)[: self.batch]
        texts = [self.data.caption(int(i), self.words) for i in indices]
        scale = self.model.logit_scale.exp().clamp(max=100)
        logits = scale * gathered(self._images(indices)) @ gathered(self.encoder.embed_texts(texts)).T
        captions = ("\n".join(self.data.captions[int(i)]) for i in indices)
        keys = gathered(torch.tensor([[_key(t) for t in pair] for pair in zip(texts, captions, strict=True)]))
        same = (keys[:, None] == keys).any(dim=2).to(logits.device)
        target = torch.arange(len(logits), device=logits.device)
        logits = logits.masked_fill(same & (target[:, None] != target), -1e4)
        right = (logits.argmax(1) == target).float().mean()
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return loss, {"r@1": right.item()}

    def evaluate(self, folder: Path) -> dict[str, float]:
        """Returns R@1 on the images held back; an equal caption of another image counts as right."""
        indices, words = np.arange(self.trained_on, len(self.data)), random.Random(0)
        texts = [self.data.caption(int(i), words) for i in indices]
        first = (self._images(indices) @ self.encoder.embed_texts(texts).T).argmax(1).tolist()
        return {"val_r@1": float(np.mean([texts[k] == text for k, text in zip(first, texts, strict=True)]))}

    def _images(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Returns the unit features [B, D] of images, with their graph to the weights."""
        return self.encoder.image_features((self.data.images(indices) + 1) / 2)


def _key(text: str) -> int:
    """Returns a 63-bit hash of a text, the same in every process."""
    return int(sha256_of(text)[:16], 16) >> 1
