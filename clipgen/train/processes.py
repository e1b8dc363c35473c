"""Device, precision and seed of the training processes."""

from __future__ import annotations

from datetime import UTC, datetime

import torch
from accelerate import Accelerator


def make_accelerator() -> Accelerator:
    """Returns the accelerator, in bf16 if this machine multiplies bf16 in hardware."""
    precision = "bf16" if bf16_is_fast() else "no"
    # cpu=True lets torchrun connect processes on a machine without a GPU
    return Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())


def bf16_is_fast() -> bool:
    """Returns whether this machine multiplies bf16 in hardware: current CUDA GPUs, CPUs with AMX or AVX512-BF16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def seed_of(accelerator: Accelerator) -> int:
    """Returns a seed that differs between processes and between resumed runs, so that no data order repeats."""
    index: int = accelerator.process_index
    return index + int(datetime.now(UTC).timestamp()) * 64
