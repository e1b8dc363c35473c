"""Where a denoiser looks for each word: its cross-attention, written down while it draws.

Tang et al. 2022 (arXiv 2210.04885): the attention that places pay to a token, summed over heads, layers and steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from clipgen.families import Family

READERS = ("UNet2DConditionModel",)  # their cross-attention reads the tokens of the first text encoder, in order
CROSS = ".attn2."
SCALES = (1, 2, 4, 8, 16)  # of the latents' sides, at which a denoiser attends


def reads_words(family: Family) -> bool:
    """Tells whether a family's denoiser has cross-attention to the words of the prompt."""
    return type(family.denoiser).__name__ in READERS


class WordAttention:
    """The sum of what the places of one picture paid to each token; `size` is the latents' height and width.

    `states` [1, T, D] are the prompt's: what other texts are read for, the empty one above all, is passed over.
    """

    def __init__(self, states: Tensor, size: tuple[int, int]) -> None:
        self.states = states
        self.size = size
        self.total = states.new_zeros(states.shape[1], *size).float()

    def hear(self, attention: Any, places: Tensor, states: Tensor) -> None:
        """Takes part in one cross-attention of places [B, N, C] to token states [B, T, D]."""
        import torch
        import torch.nn.functional as F

        with torch.no_grad():
            own = (states == self.states.to(states)).flatten(1).all(dim=1)
            if not own.any():
                return
            query = attention.head_to_batch_dim(attention.to_q(places[own][:1]))
            key = attention.head_to_batch_dim(attention.to_k(states[own][:1]))
            paid = attention.get_attention_scores(query, key).float().mean(dim=0).T  # [T, N]
            maps = paid.unflatten(1, _grid(paid.shape[1], self.size))
            self.total += F.interpolate(maps[None], self.size, mode="bicubic", align_corners=False)[0].clamp(min=0)


class _Listening:
    """An attention processor that lets somebody listen and then does what it did before."""

    def __init__(self, processor: Any, hear: Callable[[Any, Tensor, Tensor], None]) -> None:
        self.processor, self.hear = processor, hear

    def __call__(
        self, attention: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *rest: Any, **more: Any
    ) -> Tensor:
        self.hear(attention, hidden_states, encoder_hidden_states)
        output: Tensor = self.processor(attention, hidden_states, encoder_hidden_states, *rest, **more)
        return output


@contextmanager
def listening(family: Family, heard: WordAttention) -> Iterator[None]:
    """Writes down into `heard` every cross-attention of a family's denoiser inside the block."""
    before = dict(family.denoiser.attn_processors)
    with_ears = {
        name: _Listening(processor, heard.hear) if CROSS in name else processor for name, processor in before.items()
    }
    family.denoiser.set_attn_processor(with_ears)
    try:
        yield
    finally:
        family.denoiser.set_attn_processor(before)


def _grid(places: int, size: tuple[int, int]) -> tuple[int, int]:
    """Returns height and width of so many places, a halved size of the latents'."""
    grids = [(ceil(size[0] / scale), ceil(size[1] / scale)) for scale in SCALES]
    return next(grid for grid in grids if grid[0] * grid[1] == places)
