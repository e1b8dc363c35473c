"""Pictures into words: CLIP's vector of a picture becomes the first words of a small GPT-2, which goes on (ClipCap)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, PreTrainedModel

from clipgen.captioning.clip_captioner import CaptionHeadConfig, generate_captions
from clipgen.clip.encoder import ClipEncoder

LAYERS, HEADS = 4, 4  # of the transformer mapper; the paper has eight of each for a GPT-2 three times as wide


@strict
class ClipCapConfig(CaptionHeadConfig):
    """Sizes of a ClipCap: `features` numbers of CLIP's vector, `prefix` words made of them, by which mapper."""

    model_type = "clipgen_clipcap"

    features: int = 512
    prefix: int = 10
    mapper: str = "mlp"


class TransformerMapper(nn.Module):
    """CLIP's vector as a few words, and as many learnt ones that look at them: what becomes of those is the prefix.

    Mokady et al. 2021 (arXiv 2111.09734, section 3.2).
    """

    def __init__(self, features: int, width: int, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix
        self.project = nn.Linear(features, width * prefix)
        self.learnt = nn.Parameter(torch.randn(prefix, width) * width**-0.5)
        layer = nn.TransformerEncoderLayer(width, HEADS, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, features: Tensor) -> Tensor:
        """Returns [B, prefix * W] of unit vectors [B, D]; their numbers, far below one, are made as large as words."""
        seen = self.project(features * features.shape[-1] ** 0.5).unflatten(1, (self.prefix, -1))
        learnt = self.learnt.expand(len(seen), -1, -1)
        found: Tensor = self.layers(torch.cat([seen, learnt], dim=1))[:, self.prefix :].flatten(1)
        return found


def build_mapper(kind: str, features: int, width: int, prefix: int) -> nn.Module:
    """Returns an untrained mapper from [B, D] to [B, prefix * W]; raises ValueError for a kind that is none."""
    if kind == "transformer":
        return TransformerMapper(features, width, prefix)
    if kind != "mlp":
        raise ValueError(f"mapper '{kind}' is neither mlp nor transformer")
    hidden = width * prefix // 2
    return nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, width * prefix))


class ClipCap(PreTrainedModel):  # type: ignore[misc]
    """A mapper from CLIP's vectors to `prefix` word embeddings, and the decoder that reads them, a GPT2LMHeadModel.

    ClipCap: Mokady et al. 2021 (arXiv 2111.09734); the mapper is the MLP of section 3.1 or the transformer of 3.2.
    """

    config_class = ClipCapConfig
    kind: ClassVar[str] = "clipcap"
    cache_features: ClassVar[bool] = True  # what it sees of a picture: worth keeping for every picture of a training

    def __init__(self, config: ClipCapConfig) -> None:
        super().__init__(config)
        self.decoder = GPT2LMHeadModel(config.decoder)
        self.prefix = config.prefix
        self.mapper = build_mapper(config.mapper, config.features, self.decoder.config.n_embd, config.prefix)
        self.post_init()

    @property
    def width(self) -> int:
        """How many numbers a picture is to it."""
        features: int = self.config.features
        return features

    def encode_images(self, encoder: ClipEncoder, pixels: Tensor) -> Tensor:
        """Returns CLIP's unit vectors [B, D] of pictures [B, 3, H, W] in [0, 1]."""
        return encoder.image_features(pixels)

    def prefix_embeds(self, features: Tensor) -> Tensor:
        """Returns the words that stand for pictures, [B, prefix, W], of unit vectors [B, D]."""
        lead: Tensor = self.mapper(features).unflatten(1, (self.prefix, -1))
        return lead

    def forward(self, features: Tensor, ids: Tensor) -> Tensor:
        """Returns the logits [B, T, V] of each token of captions [B, T], given the picture and the tokens before it."""
        words = self.decoder.transformer.wte(ids[:, :-1])
        logits: Tensor = self.decoder(inputs_embeds=torch.cat([self.prefix_embeds(features), words], dim=1)).logits
        return logits[:, self.prefix - 1 :]

    @torch.no_grad()
    def caption(self, features: Tensor, tokenizer: Any) -> list[str]:
        """Returns a caption for each of the unit vectors [B, D], always the same, by a beam of four."""
        lead = self.prefix_embeds(features)
        seen = torch.ones(lead.shape[:2], dtype=torch.long, device=lead.device)
        return generate_captions(self.decoder, tokenizer, inputs_embeds=lead, attention_mask=seen)
