"""CoCa: a GPT-2 that writes the caption with cross-attention to pooled CLIP patch states.

Yu et al. 2022 (arXiv 2205.01917).
"""

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
    """Config of CoCa: the size of a patch's hidden state (`states`), and how many `queries` pool the patches."""

    model_type = "clipgen_coca"

    states: int = 768
    queries: int = 64


class Pooler(nn.Module):
    """Attentional pooling: learnt queries attend to CLIP's patch states (Yu et al. 2022, section 3.2)."""

    def __init__(self, states: int, width: int, queries: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.attention = nn.MultiheadAttention(width, HEADS, kdim=states, vdim=states, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, states: Tensor) -> Tensor:
        """Returns pooled states [B, queries, W] of patch states [B, N, S]."""
        queries = self.queries.expand(len(states), -1, -1)
        pooled: Tensor = self.norm(self.attention(queries, states, states, need_weights=False)[0])
        return pooled


class Coca(PreTrainedModel):  # type: ignore[misc]
    """An attentional pooler over CLIP's patch states, and a GPT2LMHeadModel with cross-attention to its output.

    Every decoder layer has cross-attention; in the paper only the upper half has. The paper's contrastive encoders are
    a separate CLIP model here.
    """

    config_class = CocaConfig
    kind: ClassVar[str] = "coca"
    cache_features: ClassVar[bool] = False  # a state per patch: too large to keep for a whole data set

    def __init__(self, config: CocaConfig) -> None:
        super().__init__(config)
        self.decoder = GPT2LMHeadModel(config.decoder)
        self.pooler = Pooler(config.states, self.decoder.config.n_embd, config.queries)
        self.post_init()

    @property
    def feature_size(self) -> int:
        """The size of a patch's hidden state."""
        states: int = self.config.states
        return states

    def encode_images(self, encoder: ClipEncoder, pixels: Tensor) -> Tensor:
        """Returns CLIP's patch states [B, N, S] of images [B, 3, H, W] in [0, 1]."""
        return encoder.image_hidden_states(pixels)

    def forward(self, states: Tensor, ids: Tensor) -> Tensor:
        """Returns the logits [B, T, V] of caption tokens `ids` [B, T], each given the image and the tokens before."""
        start = torch.full_like(ids[:, :1], self.decoder.config.bos_token_id)
        input_ids = torch.cat([start, ids[:, :-1]], dim=1)  # shifted right by the start token
        logits: Tensor = self.decoder(input_ids=input_ids, encoder_hidden_states=self.pooler(states)).logits
        return logits

    @torch.no_grad()
    def caption(self, states: Tensor, tokenizer: Any) -> list[str]:
        """Returns one caption per image from patch states [B, N, S], by beam search without sampling."""
        start = torch.full((len(states), 1), self.decoder.config.bos_token_id, device=states.device)
        return generate_captions(
            self.decoder,
            tokenizer,
            input_ids=start,
            attention_mask=torch.ones_like(start),
            encoder_hidden_states=self.pooler(states),
        )
