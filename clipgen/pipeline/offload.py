"""Moves text encoders that wait in CPU memory to the device for as long as they encode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from clipgen.device import free_memory, release_memory
from clipgen.families import Family
from clipgen.models.load import RESERVE

CPU = torch.device("cpu")


@contextmanager
def text_encoders_on_device(family: Family) -> Iterator[None]:
    """Moves the text encoders of a family to the device of its VAE, and back at the end, if they wait on the CPU.

    If they do not fit there together with the denoiser, the denoiser waits on the CPU meanwhile.
    """
    if not family.text_encoders_wait:
        yield
        return
    device, networks = family.vae.device, [text_encoder.model for text_encoder in family.text_encoders]
    free = free_memory(device)
    swaps = free is not None and sum(map(_bytes_of, networks)) + RESERVE > free
    try:
        if swaps:
            _move([family.denoiser], CPU, device)
        _move(networks, device, device)
        yield
    finally:
        _move(networks, CPU, device)
        if swaps:
            _move([family.denoiser], device, device)


def _move(networks: list[nn.Module], place: torch.device, device: torch.device) -> None:
    for network in networks:
        network.to(place)
    release_memory(device)


def _bytes_of(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in network.parameters())
