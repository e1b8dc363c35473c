"""A CLIP on somebody's own pictures: pairs told apart from the other pairs of a batch (Radford et al. 2021)."""

from __future__ import annotations

import hashlib
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
from clipgen.train.captioned import Captioned
from clipgen.train.data import held_back
from clipgen.train.gathered import gathered

HELD_BACK = 256  # pictures that are never trained on, at most


class PairPart:
    """Trains a CLIP on pictures and their captions; equal captions of a batch are no opposites."""

    def __init__(
        self, clip: CLIPModel, tokenizer: CLIPTokenizer, preprocessor: Mapping[str, Any], data: Captioned, batch: int,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.preprocessor, self.data = clip, tokenizer, preprocessor, data
        self.seen = len(data) - held_back(data, HELD_BACK)
        self.batch = min(batch, self.seen)
        self.numbers, self.words = np.random.default_rng(seed), random.Random(seed)

    def to(self, device: torch.device) -> None:
        """Moves both encoders to a device; on CPUs attention is two plain products, whose gradient is far cheaper."""
        self.model.to(device)
        if device.type == "cpu":
            self.model.set_attn_implementation("eager")
        self.encoder = ClipEncoder("own", self.model, self.tokenizer, self.preprocessor)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the symmetric contrastive loss of one batch, that of all processes together."""
        indices = self.numbers.permutation(self.seen)[: self.batch]
        texts = [self.data.caption(int(i), self.words) for i in indices]
        scale = self.model.logit_scale.exp().clamp(max=100)
        logits = scale * gathered(self._images(indices)) @ gathered(self.encoder.embed_texts(texts)).T
        told = ("\n".join(self.data.captions[int(i)]) for i in indices)
        names = gathered(torch.tensor([[_number_of(t) for t in pair] for pair in zip(texts, told, strict=True)]))
        same = (names[:, None] == names).any(dim=2).to(logits.device)
        target = torch.arange(len(logits), device=logits.device)
        logits = logits.masked_fill(same & (target[:, None] != target), -1e4)
        right = (logits.argmax(1) == target).float().mean()
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return loss, {"r@1": right.item()}

    def show(self, folder: Path) -> dict[str, float]:
        """Measures on the pictures held back how often the own caption, or its equal, comes first."""
        indices, words = np.arange(self.seen, len(self.data)), random.Random(0)
        texts = [self.data.caption(int(i), words) for i in indices]
        first = (self._images(indices) @ self.encoder.embed_texts(texts).T).argmax(1).tolist()
        return {"val_r@1": float(np.mean([texts[k] == text for k, text in zip(first, texts, strict=True)]))}

    def _images(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Returns the unit vectors [B, D] of pictures, with their graph to the weights."""
        return self.encoder.image_features((self.data.images(indices) + 1) / 2)


def _number_of(text: str) -> int:
    """Returns a number of 63 bits that stands for a text, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1
