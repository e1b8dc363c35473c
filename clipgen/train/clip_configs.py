"""The architectures of storybook's CLIP, which guides, and of its judge, which never does."""

from __future__ import annotations

from math import log, pi
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, SiglipConfig, SiglipModel

TOKEN_STD = 0.5  # of token embeddings; the usual 0.02 is below the noise of the layers
PATCH_POSITION_STD, TOKEN_POSITION_STD = 0.3, 0.2  # of position embeddings; 0.02 is lost in the upper layers
LONGEST_WAVE = 30.0  # of position embeddings, as a multiple of the shortest
FEATURES = 256


def build_clip(tokenizer: CLIPTokenizer, side: int = 128) -> CLIPModel:
    """Builds an untrained CLIP for `side` x `side` pixels in 8 x 8 patches, with FEATURES-dimensional features."""
    vision = {
        "hidden_size": 224, "intermediate_size": 896, "num_hidden_layers": 6, "num_attention_heads": 4,
        "image_size": side, "patch_size": side // 8, "hidden_act": "gelu",
    }  # fmt: skip
    clip = CLIPModel(CLIPConfig(text_config=text_config(tokenizer), vision_config=vision, projection_dim=FEATURES))
    _init_embeddings(clip)
    return clip


def build_judge(tokenizer: CLIPTokenizer, side: int = 128) -> SiglipModel:
    """Builds an untrained judge: narrower, deeper, with a pooling head and bidirectional text attention."""
    vision = {
        "hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 7, "num_attention_heads": 6,
        "image_size": side, "patch_size": side // 8, "hidden_act": "gelu",
    }  # fmt: skip
    text = {
        **text_config(tokenizer), "hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 3,
        "num_attention_heads": 6, "projection_size": 192,
    }  # fmt: skip
    judge = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    _init_embeddings(judge)
    nn.init.constant_(judge.logit_scale, log(10))
    nn.init.constant_(judge.logit_bias, -10.0)
    return judge


def _init_embeddings(clip: CLIPModel | SiglipModel) -> None:
    """Initialises token and position embeddings with enough variance to be distinguished from the first step on."""
    texts, patches = clip.text_model.embeddings, clip.vision_model.embeddings.position_embedding.weight
    nn.init.normal_(texts.token_embedding.weight, std=TOKEN_STD)
    tokens, side = texts.position_embedding.weight, int(len(patches) ** 0.5)  # a class token may precede the patches
    row = _waves(side, patches.shape[1] // 2)
    rows, columns = row.repeat_interleave(side, 0), row.repeat(side, 1)
    with torch.no_grad():
        patches[-(side**2) :] += PATCH_POSITION_STD * torch.cat([columns, rows], dim=1)
        tokens += TOKEN_POSITION_STD * _waves(*tokens.shape)


def _waves(count: int, width: int) -> Tensor:
    """Returns sines and cosines [count, width] of positions, with mean 0 and standard deviation 1."""
    lengths = LONGEST_WAVE ** -torch.linspace(0, 1, width // 2)
    angles = torch.arange(count)[:, None] * lengths * 2 * pi / count
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    waves = waves - waves.mean(dim=0)
    return waves / waves.std()


def text_config(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """Returns the sizes of CLIP's text encoder."""
    return {
        "vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
        "num_attention_heads": 4, "max_position_embeddings": tokenizer.model_max_length, "hidden_act": "gelu",
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
