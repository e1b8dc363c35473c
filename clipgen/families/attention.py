"""Cross-attention maps: which positions of the image attend to each token of the prompt while it is generated.

DAAM: Tang et al. 2022 (arXiv 2210.04885). Attention is averaged over heads and summed over layers and steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from clipgen.families import Family

# Denoisers whose cross-attention reads the tokens of the first text encoder, in order.
TEXT_CROSS_ATTENTION = ("UNet2DConditionModel",)
CROSS_ATTENTION = ".attn2."  # in the names of the attention processors
SCALES = (1, 2, 4, 8, 16)  # the latents are downscaled by one of these where the UNet attends


def has_text_cross_attention(family: Family) -> bool:
    """Tells whether a family's denoiser has cross-attention to the tokens of the prompt."""
    return type(family.denoiser).__name__ in TEXT_CROSS_ATTENTION


class AttentionMaps:
    """Sums the attention that the positions of one image pay to each token, into `total` [T, h, w].

    `encoder_hidden_states` [1, T, D] are those of the prompt; rows with other states (the negative prompt) are
    skipped. `size` is the height and width of the latents.
    """

    def __init__(self, encoder_hidden_states: Tensor, size: tuple[int, int]) -> None:
        self.encoder_hidden_states = encoder_hidden_states
        self.size = size
        self.total = encoder_hidden_states.new_zeros(encoder_hidden_states.shape[1], *size).float()

    def add(self, attention: Any, hidden_states: Tensor, encoder_hidden_states: Tensor) -> None:
        """Adds one cross-attention of hidden_states [B, N, C] to encoder_hidden_states [B, T, D]."""
        import torch
        import torch.nn.functional as F

        with torch.no_grad():
            is_prompt = (encoder_hidden_states == self.encoder_hidden_states.to(encoder_hidden_states)).flatten(1)
            rows = is_prompt.all(dim=1)
            if not rows.any():
                return
            query = attention.head_to_batch_dim(attention.to_q(hidden_states[rows][:1]))
            key = attention.head_to_batch_dim(attention.to_k(encoder_hidden_states[rows][:1]))
            probabilities = attention.get_attention_scores(query, key).float().mean(dim=0).T  # [heads, N, T] -> [T, N]
            maps = probabilities.unflatten(1, _grid(probabilities.shape[1], self.size))
            self.total += F.interpolate(maps[None], self.size, mode="bicubic", align_corners=False)[0].clamp(min=0)


class _RecordingProcessor:
    """An attention processor that adds the attention to `maps` and then calls the original processor."""

    def __init__(self, processor: Any, maps: AttentionMaps) -> None:
        self.processor, self.maps = processor, maps

    def __call__(
        self, attention: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        self.maps.add(attention, hidden_states, encoder_hidden_states)
        output: Tensor = self.processor(attention, hidden_states, encoder_hidden_states, *args, **kwargs)
        return output


@contextmanager
def recording_attention(family: Family, maps: AttentionMaps) -> Iterator[None]:
    """Adds every cross-attention of a family's denoiser inside the block to `maps`."""
    processors = dict(family.denoiser.attn_processors)
    recording = {
        name: _RecordingProcessor(processor, maps) if CROSS_ATTENTION in name else processor
        for name, processor in processors.items()
    }
    family.denoiser.set_attn_processor(recording)
    try:
        yield
    finally:
        family.denoiser.set_attn_processor(processors)


def _grid(positions: int, size: tuple[int, int]) -> tuple[int, int]:
    """Returns height and width of the latents at the scale that has this many positions."""
    grids = [(ceil(size[0] / scale), ceil(size[1] / scale)) for scale in SCALES]
    return next(grid for grid in grids if grid[0] * grid[1] == positions)
