"""Captioners: a head on a CLIP, ClipCap or CoCa, learns to write captions from what the CLIP sees of pictures."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, GPT2Config

from clipgen.captioning.clip_captioner import LONGEST
from clipgen.captioning.clipcap import ClipCap, ClipCapConfig
from clipgen.captioning.coca import Coca, CocaConfig
from clipgen.clip.encoder import ClipEncoder
from clipgen.train.data import Pictures, Renders, Seen, held_back
from clipgen.train.loop import Budget
from clipgen.world.grammar import plain_caption

BUDGET = Budget(1, 64, 1e-3, warmup=200, average=0.995, weight_decay=0.01)
HELD_BACK = 256  # pictures that are measured and never trained on
PREFIX = 6  # word embeddings that stand for a picture
QUERIES = 64  # what CoCa gathers of a picture
IGNORED = -100


def build_captioner(tokenizer: CLIPTokenizer, features: int, mapper: str = "mlp") -> ClipCap:
    """Builds the untrained ClipCap for CLIP's vectors of so many numbers; it writes the tokens of the CLIP."""
    decoder = _decoder(tokenizer, PREFIX + LONGEST + 1)
    return ClipCap(ClipCapConfig(features=features, prefix=PREFIX, mapper=mapper, decoder=decoder))


def build_coca(tokenizer: CLIPTokenizer, states: int) -> Coca:
    """Builds the untrained CoCa for patch states of so many numbers; it writes the tokens of the CLIP."""
    decoder = _decoder(tokenizer, LONGEST + 2, add_cross_attention=True)
    return Coca(CocaConfig(states=states, queries=QUERIES, decoder=decoder))


def _decoder(tokenizer: CLIPTokenizer, longest: int, **more: Any) -> GPT2Config:
    return GPT2Config(
        vocab_size=len(tokenizer), n_positions=longest, n_embd=192, n_layer=4, n_head=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **more,
    )  # fmt: skip


class CaptionerPart:
    """Trains on what a CLIP sees of pictures and fresh captions of them; the CLIP itself stays as it is."""

    def __init__(
        self, model: ClipCap | Coca, clip: CLIPModel, tokenizer: CLIPTokenizer, preprocessor: Mapping[str, Any],
        data: Pictures, batch: int, seed: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.clip, self.tokenizer, self.data = model, clip.eval(), tokenizer, data
        self.preprocessor = preprocessor
        self.known = len(data) - held_back(data, HELD_BACK)
        self.batch = min(batch, self.known)
        self.numbers, self.words = np.random.default_rng(seed), random.Random(seed)
        self.kept = Seen(self._look)

    def to(self, device: torch.device) -> None:
        """Moves the captioner, and the CLIP that feeds it, to a device; on CPUs attention is two plain products."""
        self.model.to(device)
        self.clip.to(device)
        if device.type == "cpu":
            self.model.decoder.set_attn_implementation("eager")
        self.encoder = ClipEncoder("own", self.clip, self.tokenizer, self.preprocessor)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the mean cross entropy of the captions' tokens."""
        indices = self.numbers.integers(0, self.known, self.batch)
        return self._loss(indices, self._captions(indices, self.words)), {}

    def _captions(self, indices: npt.NDArray[np.int64], words: random.Random) -> list[str]:
        """Returns what is to be written of some pictures: of renders the plain caption, which says all and no more."""
        if isinstance(self.data, Renders):
            return [plain_caption(self.data.scene(int(i))) for i in indices]
        return [self.data.caption(int(i), words) for i in indices]

    def _loss(self, indices: npt.NDArray[np.int64], texts: list[str]) -> Tensor:
        return writing_loss(self.model, self._seen(indices), texts, self.tokenizer)

    @torch.no_grad()
    def _seen(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Returns what CLIP sees of some pictures, [B, ...]; where that is one vector a picture it is kept."""
        device = self.encoder.model.device
        return self.kept.of(indices).to(device) if self.model.cache_features else self._look(indices)

    def _look(self, indices: npt.NDArray[np.int64]) -> Tensor:
        return self.model.encode_images(self.encoder, (self.data.images(indices) + 1) / 2)

    def show(self, folder: Path) -> dict[str, float]:
        """Writes captions of pictures held back; measures their loss and how many of the things in them are named."""
        indices, words = np.arange(self.known, len(self.data)), random.Random(0)
        texts = self._captions(indices, words)
        written = self.model.caption(self._seen(indices[:64]), self.tokenizer)
        lines = [f"{true}\n    {own}" for true, own in zip(texts, written, strict=False)]
        (folder / "captions.txt").write_text("\n".join(lines) + "\n", "utf-8")
        return {"val_loss": self._loss(indices, texts).item(), **self._named(indices, written)}

    def _named(self, indices: npt.NDArray[np.int64], written: list[str]) -> dict[str, float]:
        """Returns the share of the things in renders that their captions name."""
        if not isinstance(self.data, Renders):
            return {}
        pairs = [
            (thing.concept, text)
            for i, text in zip(indices, written, strict=False)
            for thing in self.data.scene(int(i)).things
        ]
        return {"val_named": float(np.mean([concept in text for concept, text in pairs]))}


def writing_loss(head: ClipCap | Coca, seen: Tensor, texts: Sequence[str], tokenizer: CLIPTokenizer) -> Tensor:
    """Returns the mean cross entropy of captions' tokens, each with its end, given what is seen of their pictures."""
    found = tokenizer(list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    ids: Tensor = found.input_ids[:, 1:].to(seen.device)  # without a start: the picture is that
    logits = head(seen, ids)
    return F.cross_entropy(logits.flatten(0, 1).float(), _after_the_end_ignored(ids, tokenizer.eos_token_id))


def _after_the_end_ignored(ids: Tensor, end: int) -> Tensor:
    """Returns the tokens [B * T] to be predicted; what follows a caption's first end token does not count."""
    ended = (ids == end).cumsum(dim=1)
    return ids.masked_fill((ended > 1) | ((ended == 1) & (ids != end)), IGNORED).flatten()
