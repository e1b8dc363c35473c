"""Gathers features of all processes, so that the contrastive loss spans the whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def gathered(rows: Tensor) -> Tensor:
    """Returns the rows [B, ...] of all P processes as [P * B, ...]; with one process the rows themselves.

    The gradient of a row is the sum of its gradients in all processes. If each process computes the same loss on all
    rows and gradients are averaged afterwards, the result equals one process with the whole batch.
    """
    return _Gather.apply(rows) if _is_distributed() else rows  # type: ignore[no-untyped-call]


def _is_distributed() -> bool:
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
