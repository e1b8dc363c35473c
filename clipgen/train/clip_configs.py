"""The sizes of storybook's CLIPs: the guide, and the judge that never guides."""

from __future__ import annotations

from math import log, pi
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, SiglipConfig, SiglipModel

WORD_SPREAD = 0.5  # standard deviation of new token embeddings; the usual 0.02 drowns them in the layers' noise
PLACE_SPREAD, TURN_SPREAD = 0.3, 0.2  # of what a patch's place and a word's turn add; 0.02 is forgotten on the way up
LONGEST_WAVE = 30.0  # of what tells places apart, as multiples of the shortest
FEATURES = 256


def build_clip(tokenizer: CLIPTokenizer, side: int = 128) -> CLIPModel:
    """Builds the untrained CLIP for pictures of `side` pixels in 8 x 8 patches; its features have 256 numbers."""
    vision = {
        "hidden_size": 224, "intermediate_size": 896, "num_hidden_layers": 6, "num_attention_heads": 4,
        "image_size": side, "patch_size": side // 8, "hidden_act": "gelu",
    }  # fmt: skip
    clip = CLIPModel(CLIPConfig(text_config=text_config(tokenizer), vision_config=vision, projection_dim=FEATURES))
    _tell_places(clip)
    return clip


def build_judge(tokenizer: CLIPTokenizer, side: int = 128) -> SiglipModel:
    """Builds the untrained second CLIP: narrower and deeper, smaller patches, a pooling head, texts read both ways."""
    vision = {
        "hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 7, "num_attention_heads": 6,
        "image_size": side, "patch_size": side // 8, "hidden_act": "gelu",
    }  # fmt: skip
    text = {
        **text_config(tokenizer), "hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 3,
        "num_attention_heads": 6, "projection_size": 192,
    }  # fmt: skip
    judge = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    _tell_places(judge)
    nn.init.constant_(judge.logit_scale, log(10))
    nn.init.constant_(judge.logit_bias, -10.0)
    return judge


def _tell_places(clip: CLIPModel | SiglipModel) -> None:
    """Makes words differ from each other, and places, of words and of patches, enough to be told from the start."""
    words, patches = clip.text_model.embeddings, clip.vision_model.embeddings.position_embedding.weight
    nn.init.normal_(words.token_embedding.weight, std=WORD_SPREAD)
    turns, side = words.position_embedding.weight, int(len(patches) ** 0.5)  # a class token stands before the patches
    row = _waves(side, patches.shape[1] // 2)
    down, across = row.repeat_interleave(side, 0), row.repeat(side, 1)
    with torch.no_grad():
        patches[-(side**2) :] += PLACE_SPREAD * torch.cat([across, down], dim=1)
        turns += TURN_SPREAD * _waves(*turns.shape)


def _waves(count: int, width: int) -> Tensor:
    """Returns sines and cosines [count, width] of places in a row, of deviation 1, the mean taken away."""
    lengths = LONGEST_WAVE ** -torch.linspace(0, 1, width // 2)
    angles = torch.arange(count)[:, None] * lengths * 2 * pi / count
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    waves = waves - waves.mean(dim=0)
    return waves / waves.std()


def text_config(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """Returns the sizes of the text towers, CLIP's and the denoiser's."""
    return {
        "vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
        "num_attention_heads": 4, "max_position_embeddings": tokenizer.model_max_length, "hidden_act": "gelu",
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
