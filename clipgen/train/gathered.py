"""One batch over all processes: what is told apart within a batch is told apart from every process's part of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def gathered(rows: Tensor) -> Tensor:
    """Returns the rows [B, ...] of every process as [P * B, ...], in the order of processes; alone it returns its own.

    Gradients go back to the process that a row came from, summed over all. Where each process takes the same loss of
    all rows and gradients are then averaged, they are those of one process with the whole batch.
    """
    return _Gather.apply(rows) if _are_several() else rows  # type: ignore[no-untyped-call]


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous()
        distributed.all_reduce(summed)
        return summed.chunk(distributed.get_world_size())[distributed.get_rank()]
