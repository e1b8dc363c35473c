"""From what CLIP sees in a picture to the prompt that draws another one like it.

unCLIP (Ramesh et al. 2022, arXiv 2204.06125) tells its decoder CLIP's vector itself. A denoiser that was trained on
prompts alone is told the likeliest prompt instead, all tokens at once, by ClipCap's MLP mapper (Mokady et al. 2021,
2111.09734, section 3.1). Tokens that do not know of each other make broken sentences, so the likeliest is sought among
those in which each two neighbours were neighbours in training (Viterbi 1967). Text states regressed from the vector are
a mean of all things that it could be, which draws none of them (train/LOG.md). A prompt is a caption too: what the
prior tells the denoiser, it can tell people.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.neighbours import likeliest, neighbours
from clipgen.clip.writer import cleaned


class ImagePrior(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """An MLP from the `features` numbers of CLIP's vector to a token of `vocabulary` at each of `tokens` places.

    `hidden` numbers are mixed in between, `rank` of them span what is said at all places, `width` what at one. The
    buffer `follows` [V, V / 8] tells in bits which token may come after which; without a bit any may.
    """

    follows: Tensor

    kind: ClassVar[str] = "prior"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, features: int, tokens: int, vocabulary: int, hidden: int = 1024, rank: int = 256, width: int = 128
    ) -> None:
        super().__init__()
        self.mapper = nn.Sequential(
            nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, rank), nn.LayerNorm(rank),
            nn.Linear(rank, tokens * width),
        )  # fmt: skip
        self.words = nn.Linear(width, vocabulary)
        self.register_buffer("follows", torch.zeros(vocabulary, -(-vocabulary // 8), dtype=torch.uint8))

    def places(self, features: Tensor) -> Tensor:
        """Returns what is said at each place [B, T, width] of the prompts for CLIP's unit vectors [B, D]."""
        scaled = features * features.shape[-1] ** 0.5  # numbers of unit size
        found: Tensor = self.mapper(scaled).unflatten(1, (self.config.tokens, -1))
        return found

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits [B, T, V] of the tokens at each place."""
        logits: Tensor = self.words(self.places(features))
        return logits

    def allow(self, ids: Tensor, end: int) -> None:
        """Learns from prompts [N, T], each closed by `end`, which token may come after which."""
        self.follows.copy_(neighbours(ids, end, self.config.vocabulary))

    def ids(self, features: Tensor, start: int, end: int, padding: int) -> Tensor:
        """Returns the likeliest prompts as token ids [B, T], with what begins, ends and fills them."""
        logits = self(features)
        ids = likeliest(logits, self.follows, start, end) if self.follows.any() else logits.argmax(dim=-1)
        ids[:, 0], ids[:, -1] = start, end
        ended = (ids == end).cumsum(dim=1)
        found: Tensor = ids.masked_fill((ended > 1) | ((ended == 1) & (ids != end)), padding)
        return found

    @property
    def width(self) -> int:
        """How many numbers a picture is to it."""
        features: int = self.config.features
        return features

    def look(self, encoder: ClipEncoder, pixels: Tensor) -> Tensor:
        """Returns CLIP's unit vectors [B, D] of pictures [B, 3, H, W] in [0, 1]."""
        return encoder.image_features(pixels)

    def write(self, seen: Tensor, tokenizer: Any) -> list[str]:
        """Returns the likeliest prompts of unit vectors [B, D] in words."""
        ids = self.ids(seen, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        return cleaned(tokenizer.batch_decode(ids, skip_special_tokens=True))
