"""ClipCap: maps CLIP image features to prefix embeddings, from which a small GPT-2 continues with the caption.

Mokady et al. 2021 (arXiv 2111.09734).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, PreTrainedModel

from clipgen.captioning.clip_captioner import CaptionHeadConfig, generate_captions
from clipgen.clip.encoder import ClipEncoder

LAYERS, HEADS = 4, 4  # of the transformer mapper; the paper has 8 of each for a GPT-2 three times as wide


@strict
class ClipCapConfig(CaptionHeadConfig):
    """Config of ClipCap: the size of CLIP's `features`, the length of the `prefix`, the kind of `mapper`."""

    model_type = "clipgen_clipcap"

    features: int = 512
    prefix: int = 10
    mapper: str = "mlp"


class TransformerMapper(nn.Module):
    """Maps image features to prefix embeddings: a transformer over projected features and learnt constant tokens.

    The outputs of the constant tokens are the prefix (Mokady et al. 2021, section 3.2).
    """

    def __init__(self, features: int, width: int, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix
        self.project = nn.Linear(features, width * prefix)
        self.learnt = nn.Parameter(torch.randn(prefix, width) * width**-0.5)
        layer = nn.TransformerEncoderLayer(width, HEADS, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the prefix, flattened to [B, prefix * W], of unit vectors [B, D]."""
        scaled = features * features.shape[-1] ** 0.5  # a unit vector's components are small; this makes their rms 1
        projected = self.project(scaled).unflatten(1, (self.prefix, -1))  # [B, prefix, W]
        constants = self.learnt.expand(len(projected), -1, -1)
        outputs: Tensor = self.layers(torch.cat([projected, constants], dim=1))  # [B, 2 * prefix, W]
        return outputs[:, self.prefix :].flatten(1)


def build_mapper(kind: str, features: int, width: int, prefix: int) -> nn.Module:
    """Returns an untrained mapper from [B, D] to [B, prefix * W]; raises ValueError for an unknown kind."""
    if kind == "transformer":
        return TransformerMapper(features, width, prefix)
    if kind != "mlp":
        raise ValueError(f"mapper '{kind}' is neither mlp nor transformer")
    hidden = width * prefix // 2
    return nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, width * prefix))


class ClipCap(PreTrainedModel):  # type: ignore[misc]
    """A mapper from image features to prefix embeddings, and a GPT2LMHeadModel that continues from them.

    The mapper is the MLP of section 3.1 or the transformer of section 3.2 (Mokady et al. 2021).
    """

    config_class = ClipCapConfig
    kind: ClassVar[str] = "clipcap"
    cache_features: ClassVar[bool] = True  # one vector per image: training can keep those of the whole data set

    def __init__(self, config: ClipCapConfig) -> None:
        super().__init__(config)
        self.decoder = GPT2LMHeadModel(config.decoder)
        self.prefix = config.prefix
        self.mapper = build_mapper(config.mapper, config.features, self.decoder.config.n_embd, config.prefix)
        self.post_init()

    @property
    def feature_size(self) -> int:
        """The size of the image feature vector."""
        features: int = self.config.features
        return features

    def encode_images(self, encoder: ClipEncoder, pixels: Tensor) -> Tensor:
        """Returns CLIP's unit vectors [B, D] of images [B, 3, H, W] in [0, 1]."""
        return encoder.image_features(pixels)

    def prefix_embeds(self, features: Tensor) -> Tensor:
        """Returns the prefix embeddings [B, prefix, W] of unit vectors [B, D]."""
        embeds: Tensor = self.mapper(features).unflatten(1, (self.prefix, -1))
        return embeds

    def forward(self, features: Tensor, ids: Tensor) -> Tensor:
        """Returns the logits [B, T, V] of caption tokens `ids` [B, T], each given the image and the tokens before."""
        token_embeds = self.decoder.transformer.wte(ids[:, :-1])  # [B, T - 1, W]
        inputs_embeds = torch.cat([self.prefix_embeds(features), token_embeds], dim=1)
        logits: Tensor = self.decoder(inputs_embeds=inputs_embeds).logits
        return logits[:, self.prefix - 1 :]  # the last prefix position predicts the first token

    @torch.no_grad()
    def caption(self, features: Tensor, tokenizer: Any) -> list[str]:
        """Returns one caption per unit vector in [B, D], by beam search without sampling."""
        inputs_embeds = self.prefix_embeds(features)
        mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.long, device=inputs_embeds.device)
        return generate_captions(self.decoder, tokenizer, inputs_embeds=inputs_embeds, attention_mask=mask)
