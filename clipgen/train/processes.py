"""The processes of a training: on what they run, and how their data differ."""

from __future__ import annotations

from datetime import UTC, datetime

import torch
from accelerate import Accelerator


def make_accelerator() -> Accelerator:
    """Returns the accelerator of a training, in bf16 where this machine is fast at it."""
    precision = "bf16" if bf16_is_fast() else "no"
    # cpu=True lets the processes of torchrun find one another where there is no GPU
    return Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())


def bf16_is_fast() -> bool:
    """Tells whether this machine multiplies bf16 natively: any CUDA GPU of today, or a CPU with AMX or AVX512-BF16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def seed_of(accelerator: Accelerator) -> int:
    """Differs between processes and between resumed runs, so that no data order repeats."""
    index: int = accelerator.process_index
    return index + int(datetime.now(UTC).timestamp()) * 64
