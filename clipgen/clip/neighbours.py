"""The likeliest sentence whose every two neighbours are known as such: Viterbi (1967) over tokens said place by place.

Which token may come after which is kept in bits, [V, V / 8] bytes for a vocabulary of V.
"""

from __future__ import annotations

import torch
from torch import Tensor

AT_ONCE = 16  # sentences that are sought together, each of which takes a table of all pairs of tokens


def neighbours(ids: Tensor, end: int, vocabulary: int) -> Tensor:
    """Returns the bits [V, V / 8] of what follows what in sentences [N, T], each closed by `end`."""
    going_on = (ids == end).cumsum(dim=1)[:, :-1] == 0
    may = torch.zeros(vocabulary, 8 * -(-vocabulary // 8), dtype=torch.bool)
    may[ids[:, :-1][going_on], ids[:, 1:][going_on]] = True
    bits: Tensor = (may.unflatten(1, (-1, 8)) * _bits()).sum(dim=2)
    return bits.to(torch.uint8)


def likeliest(logits: Tensor, follows: Tensor, start: int, end: int) -> Tensor:
    """Returns the likeliest ids [B, T] from `start` on, for logits [B, T, V] and the bits of `neighbours`.

    What has come to its end stays there for nothing. Sentences that do not end by the last place are none.
    """
    may = (follows.cpu()[..., None] & _bits()).bool().flatten(1)[:, : logits.shape[2]]
    used = (may.any(dim=0) | may.any(dim=1)).nonzero().flatten()
    first, last = (int((used == token).nonzero()) for token in (start, end))
    barred = torch.zeros(len(used), len(used)).masked_fill(~may[used][:, used], -torch.inf)
    said = logits.float().log_softmax(dim=-1).cpu()[:, :, used]
    return used[torch.cat([_path(part, barred, first, last) for part in said.split(AT_ONCE)])].to(logits.device)


def _path(said: Tensor, barred: Tensor, first: int, last: int) -> Tensor:
    """Returns the best places [B, T] in a table of log probabilities [B, T, U] with `barred` [U, U] between them."""
    best = torch.full_like(said[:, 0], -torch.inf)
    best[:, first] = 0.0
    ways = []
    for place in range(1, said.shape[1]):
        step = barred + said[:, place, None]
        step[:, last, last] = 0.0
        best, way = (best[:, :, None] + step).max(dim=1)
        ways.append(way)
    path = [torch.full((len(said),), last)]
    for way in reversed(ways):
        path.append(way.gather(1, path[-1][:, None]).flatten())
    return torch.stack(path[::-1], dim=1)


def _bits() -> Tensor:
    """Returns the eight bits of a byte [8]; no constant, as this file may be imported while a model is laid out."""
    return 2 ** torch.arange(8, dtype=torch.uint8)
