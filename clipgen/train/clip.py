"""storybook's CLIP: two encoders trained contrastively (Radford et al. 2021), with hard negatives in every batch.

Each picture meets, beside the captions of the others, a caption of its own scene with one thing changed (another
concept, colour, count, place, style, or the two things swapped), which teaches word order and attributes that
captions of other scenes never test (Yuksekgonul et al. 2023).
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from clipgen.train.data import Renders
from clipgen.train.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.train.world.grammar import caption
from clipgen.train.world.scene import Scene, Thing

T = TypeVar("T")
HELD_BACK = 2048  # the last pictures of the renders are never trained on


def build_clip(tokenizer: CLIPTokenizer, side: int = 128) -> CLIPModel:
    """Builds the untrained CLIP for pictures of `side` pixels, 8 x 8 patches each; its features have 256 numbers."""
    vision = {
        "hidden_size": 224, "intermediate_size": 896, "num_hidden_layers": 6, "num_attention_heads": 4,
        "image_size": side, "patch_size": side // 8, "hidden_act": "gelu",
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text_config(tokenizer), vision_config=vision, projection_dim=256))


def text_config(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """Returns the sizes of the text towers, CLIP's and the denoiser's."""
    return {
        "vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
        "num_attention_heads": 4, "max_position_embeddings": tokenizer.model_max_length, "hidden_act": "gelu",
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip


class ClipPart:
    """Trains on pictures, their captions and one hard negative caption each."""

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer, renders: Renders, batch: int, seed: int = 0) -> None:
        self.model, self.tokenizer, self.renders, self.batch = clip, tokenizer, renders, batch
        self.numbers, self.words = np.random.default_rng(seed), random.Random(seed)

    def to(self, device: torch.device) -> None:
        """Moves both encoders to a device."""
        self.model.to(device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the symmetric contrastive loss of one batch."""
        indices = self.numbers.integers(0, len(self.renders) - HELD_BACK, self.batch)
        pairs = [caption_pair(self.renders.scene(int(i)), self.words) for i in indices]
        texts = [true for true, _ in pairs] + [false or true for true, false in pairs]
        spare = torch.tensor([false is None for _, false in pairs], device=self.model.device)
        output = self.model(self._ids(texts), self.renders.images(indices).to(self.model.device))
        images, words = output.image_embeds.float(), output.text_embeds.float()
        scale = self.model.logit_scale.exp().clamp(max=100)
        logits = scale * images @ words.T  # [B, 2B]
        logits = logits.masked_fill(torch.cat([torch.zeros_like(spare), spare])[None], -1e4)
        target = torch.arange(self.batch, device=logits.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, : self.batch].T, target)) / 2
        right = (logits.argmax(1) == target).float().mean()
        return loss, {"r@1": right.item(), "scale": scale.item()}

    def show(self, folder: Path) -> dict[str, float]:
        """Measures retrieval and hard-negative accuracy on the pictures held back."""
        count, rng = 512, random.Random(0)
        indices = np.arange(len(self.renders) - count, len(self.renders))
        pairs = [caption_pair(self.renders.scene(int(i)), rng) for i in indices]
        images = F.normalize(
            self.model.get_image_features(self.renders.images(indices).to(self.model.device)).pooler_output, dim=-1
        )
        true, false = (self._texts([pair[k] or pair[0] for pair in pairs]) for k in (0, 1))
        similarity = images @ true.T
        hard = torch.tensor([pair[1] is not None for pair in pairs])
        wins = ((images * true).sum(-1) > (images * false).sum(-1))[hard.to(images.device)].float().mean()
        found = (similarity.argmax(1) == torch.arange(count, device=similarity.device)).float().mean()
        return {"val_r@1": float(found), "val_hard": float(wins)}

    def _texts(self, texts: list[str]) -> Tensor:
        return F.normalize(self.model.get_text_features(self._ids(texts)).pooler_output, dim=-1)

    def _ids(self, texts: list[str]) -> Tensor:
        """Returns input_ids [B, T] padded to the longest; the text encoder is causal, so padding changes nothing."""
        found = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        ids: Tensor = found["input_ids"].to(self.model.device)
        return ids


def caption_pair(scene: Scene, rng: random.Random) -> tuple[str, str | None]:
    """Returns a true caption and one of the same wording that is false, or None where the change went unsaid."""
    state = rng.getstate()
    true = caption(scene, rng)
    changed = edited(scene, rng)
    after = rng.getstate()
    rng.setstate(state)
    false = caption(changed, rng)
    rng.setstate(after)
    return true, None if false == true else false


def edited(scene: Scene, rng: random.Random) -> Scene:
    """Changes one thing of a scene: a concept, colour, count, place, style, or swaps two things."""
    kinds = ["concept", "concept", "place", "count"]
    kinds += ["swap", "swap"] if len(scene.things) > 1 else []
    kinds += ["colour"] * 2 if any(t.colour for t in scene.things) else []
    kinds += ["style"] if scene.style != "picture book" else []
    kind = rng.choice(kinds)
    if kind == "place":
        return replace(scene, place=_other(rng, COLOURS if scene.is_plain else PLACES, scene.place))
    if kind == "style":
        return replace(scene, style=_other(rng, STYLES[1:], scene.style))
    if kind == "swap":
        return _swapped(scene, rng)
    index = rng.randrange(len(scene.things))
    if kind == "colour":
        index = next(k for k, t in enumerate(scene.things) if t.colour)
    things = list(scene.things)
    things[index] = _changed(things[index], kind, rng)
    return replace(scene, things=tuple(things))


def _changed(thing: Thing, kind: str, rng: random.Random) -> Thing:
    if kind == "colour":
        return replace(thing, colour=_other(rng, COLOURS, thing.colour))
    if kind == "count":
        return replace(thing, count=_other(rng, (1, 2, 3, 4), thing.count))
    return replace(thing, concept=_other(rng, tuple(concepts()), thing.concept))


def _swapped(scene: Scene, rng: random.Random) -> Scene:
    """Swaps two things' names where a relation tells them apart, else the colours or counts they carry."""
    a, b, *rest = scene.things
    if scene.relation and scene.relation != "next to" and (a.colour == b.colour or rng.random() < 0.5):
        a, b = replace(a, concept=b.concept), replace(b, concept=a.concept)
    else:
        a, b = replace(a, colour=b.colour, count=b.count), replace(b, colour=a.colour, count=a.count)
    return replace(scene, things=(a, b, *rest))


def _other(rng: random.Random, values: tuple[T, ...], value: T) -> T:
    return rng.choice([v for v in values if v != value])
