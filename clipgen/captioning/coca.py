"""Pictures into words by CoCa: a GPT-2 that looks at CLIP's patches while it writes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, PreTrainedModel

from clipgen.captioning.clip_captioner import CaptionHeadConfig, generate_captions
from clipgen.clip.encoder import ClipEncoder

HEADS = 4


@strict
class CocaConfig(CaptionHeadConfig):
    """Sizes of a Coca: `states` numbers a patch, `queries` that gather from the patches."""

    model_type = "clipgen_coca"

    states: int = 768
    queries: int = 64


class Pooler(nn.Module):
    """Learnt queries that gather from CLIP's patches what a caption needs (Yu et al. 2022, section 3.2)."""

    def __init__(self, states: int, width: int, queries: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.attention = nn.MultiheadAttention(width, HEADS, kdim=states, vdim=states, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, states: Tensor) -> Tensor:
        """Returns [B, queries, W] of patch states [B, N, S]."""
        queries = self.queries.expand(len(states), -1, -1)
        pooled: Tensor = self.norm(self.attention(queries, states, states, need_weights=False)[0])
        return pooled


class Coca(PreTrainedModel):  # type: ignore[misc]
    """An attentional pooler over CLIP's patch states, and the decoder that looks at what it gathered.

    CoCa: Yu et al. 2022 (arXiv 2205.01917). The decoder is a GPT2LMHeadModel with cross-attention, in every layer where
    the paper has it in the upper half; the contrastive towers are a CLIP beside it.
    """

    config_class = CocaConfig
    kind: ClassVar[str] = "coca"
    cache_features: ClassVar[bool] = False  # what it sees of a picture

    def __init__(self, config: CocaConfig) -> None:
        super().__init__(config)
        self.decoder = GPT2LMHeadModel(config.decoder)
        self.pooler = Pooler(config.states, self.decoder.config.n_embd, config.queries)
        self.post_init()

    @property
    def width(self) -> int:
        """How many numbers a patch of a picture is to it."""
        states: int = self.config.states
        return states

    def encode_images(self, encoder: ClipEncoder, pixels: Tensor) -> Tensor:
        """Returns CLIP's patch states [B, N, S] of pictures [B, 3, H, W] in [0, 1]."""
        return encoder.image_hidden_states(pixels)

    def forward(self, states: Tensor, ids: Tensor) -> Tensor:
        """Returns the logits [B, T, V] of each token of captions [B, T], given the picture and the tokens before it."""
        start = torch.full_like(ids[:, :1], self.decoder.config.bos_token_id)
        before = torch.cat([start, ids[:, :-1]], dim=1)
        logits: Tensor = self.decoder(input_ids=before, encoder_hidden_states=self.pooler(states)).logits
        return logits

    @torch.no_grad()
    def caption(self, states: Tensor, tokenizer: Any) -> list[str]:
        """Returns a caption for each picture's patch states [B, N, S], always the same, by a beam of four."""
        start = torch.full((len(states), 1), self.decoder.config.bos_token_id, device=states.device)
        seen, looked_at = torch.ones_like(start), self.pooler(states)
        return generate_captions(
            self.decoder, tokenizer, input_ids=start, attention_mask=seen, encoder_hidden_states=looked_at
        )
