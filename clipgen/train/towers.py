"""The sizes of storybook's CLIPs: the guide, and the judge that never guides."""

from __future__ import annotations

from math import log
from typing import Any

from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, SiglipConfig, SiglipModel

WORD_SPREAD = 0.5  # standard deviation of new token embeddings; the usual 0.02 drowns them in the layers' noise
FEATURES = 256


def build_clip(tokenizer: CLIPTokenizer, side: int = 128) -> CLIPModel:
    """Builds the untrained CLIP for pictures of `side` pixels in 8 x 8 patches; its features have 256 numbers."""
    vision = {
        "hidden_size": 224, "intermediate_size": 896, "num_hidden_layers": 6, "num_attention_heads": 4,
        "image_size": side, "patch_size": side // 8, "hidden_act": "gelu",
    }  # fmt: skip
    clip = CLIPModel(CLIPConfig(text_config=text_config(tokenizer), vision_config=vision, projection_dim=FEATURES))
    nn.init.normal_(clip.text_model.embeddings.token_embedding.weight, std=WORD_SPREAD)
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
    nn.init.normal_(judge.text_model.embeddings.token_embedding.weight, std=WORD_SPREAD)
    nn.init.constant_(judge.logit_scale, log(10))
    nn.init.constant_(judge.logit_bias, -10.0)
    return judge


def text_config(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """Returns the sizes of the text towers, CLIP's and the denoiser's."""
    return {
        "vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
        "num_attention_heads": 4, "max_position_embeddings": tokenizer.model_max_length, "hidden_act": "gelu",
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
