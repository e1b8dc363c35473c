"""storybook's CLIP: two encoders trained contrastively (Radford et al. 2021), with hard negatives in every batch.

Each picture meets, beside the captions of the others, a caption of its own scene with one thing changed (another
concept, colour, count, place, style, or the two things swapped), which teaches word order and attributes that
captions of other scenes never test (Yuksekgonul et al. 2023).
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from clipgen.train.data import Renders
from clipgen.train.world.concepts import COLOURS, PLACES, STYLES, concepts
from clipgen.train.world.grammar import caption
from clipgen.train.world.scene import COLOURLESS, Scene, Thing

T = TypeVar("T")
HELD_BACK = 2048  # the last pictures of the renders are never trained on


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Builds the untrained CLIP for 128-px pictures: features of 256 numbers."""
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
        "num_attention_heads": 4, "max_position_embeddings": tokenizer.model_max_length, "hidden_act": "gelu",
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 224, "intermediate_size": 896, "num_hidden_layers": 6, "num_attention_heads": 4,
        "image_size": 128, "patch_size": 16, "hidden_act": "gelu",
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=256))


class ClipPart:
    """Trains on pictures, their captions and one hard negative caption each."""

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer, renders: Renders, batch: int, seed: int = 0) -> None:
        self.model, self.tokenizer, self.renders, self.batch = clip, tokenizer, renders, batch
        self.numbers, self.words = np.random.default_rng(seed), random.Random(seed)

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the symmetric contrastive loss of one batch."""
        indices = self.numbers.integers(0, len(self.renders) - HELD_BACK, self.batch)
        pairs = [caption_pair(self.renders.scene(int(i)), self.words) for i in indices]
        texts = [true for true, _ in pairs] + [false or true for true, false in pairs]
        spare = torch.tensor([false is None for _, false in pairs])
        output = model(pixel_values=self.renders.images(indices), **tokenized(self.tokenizer, texts))
        images, words = output.image_embeds.float(), output.text_embeds.float()
        scale = self.model.logit_scale.exp().clamp(max=100)
        logits = scale * images @ words.T  # [B, 2B]
        logits = logits.masked_fill(torch.cat([torch.zeros_like(spare), spare])[None], -1e4)
        target = torch.arange(self.batch)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, : self.batch].T, target)) / 2
        right = (logits.argmax(1) == target).float().mean()
        return loss, {"r@1": right.item(), "scale": scale.item()}

    def show(self, model: nn.Module, folder: Path) -> dict[str, float]:
        """Measures retrieval and hard-negative accuracy on the pictures held back."""
        count, rng = 512, random.Random(0)
        indices = np.arange(len(self.renders) - count, len(self.renders))
        pairs = [caption_pair(self.renders.scene(int(i)), rng) for i in indices]
        images = F.normalize(model.get_image_features(self.renders.images(indices)).pooler_output, dim=-1)
        true, false = (self._texts(model, [pair[k] or pair[0] for pair in pairs]) for k in (0, 1))
        similarity = images @ true.T
        hard = torch.tensor([pair[1] is not None for pair in pairs])
        wins = ((images * true).sum(-1) > (images * false).sum(-1))[hard].float().mean()
        found = (similarity.argmax(1) == torch.arange(count)).float().mean()
        return {"val_r@1": float(found), "val_hard": float(wins)}

    def _texts(self, model: nn.Module, texts: list[str]) -> Tensor:
        return F.normalize(model.get_text_features(**tokenized(self.tokenizer, texts)).pooler_output, dim=-1)


def tokenized(tokenizer: CLIPTokenizer, texts: list[str]) -> dict[str, Tensor]:
    """Returns input_ids [B, T], padded to the longest: the text encoder is causal, so padding changes nothing before it."""
    found = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    return {"input_ids": found["input_ids"]}


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
