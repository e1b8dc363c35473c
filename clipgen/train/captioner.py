"""storybook's captioner: it learns to write the captions of renders from what CLIP sees in them (ClipCap)."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, GPT2Config, GPT2LMHeadModel

from clipgen.clip.captioner import LONGEST, Captioner
from clipgen.train.clip import Anchored
from clipgen.train.data import Pictures, Renders, held_back
from clipgen.train.loop import Budget

BUDGET = Budget(1, 64, 1e-3, warmup=200, average=0.995, weight_decay=0.01)
HELD_BACK = 256  # pictures that are measured and never trained on
PREFIX = 6  # word embeddings that stand for a picture
IGNORED = -100


def build_captioner(tokenizer: CLIPTokenizer, features: int) -> Captioner:
    """Builds the untrained captioner for CLIP's vectors of so many numbers; it writes the tokens of storybook."""
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=PREFIX + LONGEST + 1, n_embd=256, n_layer=4, n_head=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return Captioner(GPT2LMHeadModel(config), features, PREFIX)


class CaptionerPart:
    """Trains on CLIP's vectors of pictures and fresh captions of them; CLIP itself stays as it is."""

    def __init__(
        self, model: Captioner, clip: CLIPModel, tokenizer: CLIPTokenizer, data: Pictures, batch: int, seed: int = 0
    ) -> None:
        self.model, self.clip, self.tokenizer, self.data = model, Anchored(clip).eval(), tokenizer, data
        self.known = len(data) - held_back(data, HELD_BACK)
        self.batch = min(batch, self.known)
        self.numbers, self.words = np.random.default_rng(seed), random.Random(seed)
        self.seen: dict[int, Tensor] = {}

    def to(self, device: torch.device) -> None:
        """Moves the captioner, and the CLIP that feeds it, to a device; on CPUs attention is two plain products."""
        self.model.to(device)
        self.clip.to(device)
        if device.type == "cpu":
            self.model.decoder.set_attn_implementation("eager")

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the mean cross entropy of the captions' tokens."""
        indices = self.numbers.integers(0, self.known, self.batch)
        return self._loss(indices, [self.data.caption(int(i), self.words) for i in indices]), {"seen": len(self.seen)}

    def _loss(self, indices: npt.NDArray[np.int64], texts: list[str]) -> Tensor:
        ids = self._ids(texts)
        logits = self.model(self._features(indices), ids)
        return F.cross_entropy(logits.flatten(0, 1).float(), _after_the_end_ignored(ids, self.tokenizer.eos_token_id))

    def _ids(self, texts: list[str]) -> Tensor:
        """Returns the tokens of captions [B, T], each with its end, without a start: the picture is that."""
        found = self.tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        ids: Tensor = found.input_ids[:, 1:].to(next(self.model.parameters()).device)
        return ids

    @torch.no_grad()
    def _features(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Returns CLIP's unit vectors [B, D] of some pictures, which are kept."""
        device = next(self.model.parameters()).device
        if new := [int(i) for i in dict.fromkeys(indices.tolist()) if int(i) not in self.seen]:
            pictures = self.data.images(np.array(new)).to(device)
            self.seen |= dict(zip(new, self.clip.images(pictures).cpu(), strict=True))
        return torch.stack([self.seen[int(i)] for i in indices]).to(device)

    def show(self, folder: Path) -> dict[str, float]:
        """Writes captions of pictures held back; measures their loss and how many of the things in them are named."""
        indices, words = np.arange(self.known, len(self.data)), random.Random(0)
        texts = [self.data.caption(int(i), words) for i in indices]
        written = self.model.write(self._features(indices[:64]), self.tokenizer)
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


def _after_the_end_ignored(ids: Tensor, end: int) -> Tensor:
    """Returns the tokens [B * T] to be predicted; what follows a caption's first end token does not count."""
    ended = (ids == end).cumsum(dim=1)
    return ids.masked_fill((ended > 1) | ((ended == 1) & (ids != end)), IGNORED).flatten()
