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
from clipgen.clip.writer import cleaned

AT_ONCE = 16  # prompts that are sought together, each of which takes a table of all pairs of tokens


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
        vocabulary = len(self.follows)
        going_on = (ids == end).cumsum(dim=1)[:, :-1] == 0
        may = torch.zeros(vocabulary, 8 * self.follows.shape[1], dtype=torch.bool)
        may[ids[:, :-1][going_on], ids[:, 1:][going_on]] = True
        self.follows.copy_((may.unflatten(1, (-1, 8)) * _bits()).sum(dim=2))

    def ids(self, features: Tensor, start: int, end: int, padding: int) -> Tensor:
        """Returns the likeliest prompts as token ids [B, T], with what begins, ends and fills them."""
        said = self(features).float().log_softmax(dim=-1).cpu()
        ids = said.argmax(dim=-1)
        if self.follows.any():
            ids = torch.cat([self._likeliest(part, start, end) for part in said.split(AT_ONCE)])
        ids[:, 0], ids[:, -1] = start, end
        ended = (ids == end).cumsum(dim=1)
        found: Tensor = ids.masked_fill((ended > 1) | ((ended == 1) & (ids != end)), padding)
        return found.to(features.device)

    def _likeliest(self, said: Tensor, start: int, end: int) -> Tensor:
        """Returns the likeliest ids [B, T] whose neighbours may be such, for log probabilities [B, T, V].

        What has come to its end stays there for nothing. A prompt that does not end by the last place is none.
        """
        may = (self.follows.cpu()[..., None] & _bits()).bool().flatten(1)[:, : said.shape[2]]
        used = (may.any(dim=0) | may.any(dim=1)).nonzero().flatten()
        first, last = (int((used == token).nonzero()) for token in (start, end))
        barred = torch.zeros(len(used), len(used)).masked_fill(~may[used][:, used], -torch.inf)
        barred[last, last] = 0.0
        said = said[:, :, used]
        best = torch.full_like(said[:, 0], -torch.inf)
        best[:, first] = 0.0
        ways = []
        for place in range(1, said.shape[1]):
            reached, way = (best[:, :, None] + barred).max(dim=1)
            ways.append(way)
            stays = (way == last) & (torch.arange(len(used)) == last)
            best = reached + said[:, place].masked_fill(stays, 0.0)
        at = torch.full((len(said),), last)
        found = [at]
        for way in reversed(ways):
            at = way.gather(1, at[:, None]).flatten()
            found.append(at)
        return used[torch.stack(found[::-1], dim=1)]

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


def _bits() -> Tensor:
    """Returns the eight bits of a byte [8]; no constant, as this file may be imported while a model is laid out."""
    return 2 ** torch.arange(8, dtype=torch.uint8)
