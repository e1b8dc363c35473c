"""Fills checked networks with their weights, in the precision and on the device asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.models.layout import POSITIONS, CheckedModel, CheckedNetwork, NetworkSpec, with_tied
from clipgen.models.read_tokenizer import read_tokenizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LoadProgress = Callable[[int, int], object]  # (bytes that are filled, bytes in all)


def ignore_progress(done: int, total: int) -> None:
    """A LoadProgress that nobody listens to."""


def load(
    checked: CheckedModel, device: torch.device, dtype: torch.dtype, progress: LoadProgress = ignore_progress
) -> dict[str, Any]:
    """Returns the model's networks, filled, and its tokenizers, by component name; `progress` hears of each tensor.

    Raises OutOfMemory before anything is read if the device has no room, ModelError for weights that are not finite
    and for a tokenizer that cannot be read.
    """
    networks = load_networks(checked.found.name, checked.networks, device, dtype, progress)
    return {**networks, **{name: _tokenizer(checked, name) for name in checked.tokenizers}}


def load_networks(
    model: str,
    networks: Mapping[str, CheckedNetwork],
    device: torch.device,
    dtype: torch.dtype,
    progress: LoadProgress = ignore_progress,
) -> dict[str, Any]:
    """Returns checked networks, filled, by name; raises OutOfMemory, ModelError for weights that are not finite."""
    from clipgen.device import check_memory

    total = sum(_bytes(network, dtype) for network in networks.values())
    check_memory(total, device, model)
    done = 0
    for name, network in networks.items():
        for size in _fill(name, network, device, dtype):
            done += size
            progress(min(done, total), total)
    return {name: network.module for name, network in networks.items()}


def _precision(key: str, tensor: Tensor, part: NetworkSpec, dtype: torch.dtype) -> torch.dtype:
    """Returns what one tensor of a network is kept in; its whole numbers stay what they are."""
    import torch

    if not tensor.is_floating_point():
        return tensor.dtype
    too_wide = dtype == torch.float16 and any(piece in key for piece in part.not_half)
    return torch.float32 if part.full_precision or too_wide else dtype


def _bytes(network: CheckedNetwork, dtype: torch.dtype) -> int:
    """Returns the memory that a network will take; of tensors that are tied to each other one counts."""
    part, state = network.part, network.module.state_dict()
    own = {key: tensor for key, tensor in state.items() if part.tied.get(key, key) >= key}
    return sum(tensor.numel() * _precision(key, tensor, part, dtype).itemsize for key, tensor in own.items())


def _fill(name: str, network: CheckedNetwork, device: torch.device, dtype: torch.dtype) -> Iterator[int]:
    """Fills a network, and yields the bytes of each tensor once it is on the device."""
    state: dict[str, Tensor] = {}
    for key, tensor in _tensors(name, network, dtype):
        state[key] = tensor.to(device)
        yield tensor.nbytes
    network.module.load_state_dict(with_tied(state, network.part), assign=True)
    _restore_positions(network.module, device)


def _tensors(name: str, network: CheckedNetwork, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yields each tensor under its present-day name, copied out of the file and known to be finite."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    own = network.module.state_dict()
    for path in network.paths:
        try:
            stored = load_file(path)
        except SafetensorError as error:
            raise ModelError(f"{name}/{path.name} cannot be read: {error}") from None
        for key, tensor in stored.items():
            if key.endswith(POSITIONS):
                continue
            renamed = network.part.rename(key)
            tensor = tensor.to(_precision(renamed, own.get(renamed, tensor), network.part, dtype), copy=True)
            if tensor.numel() and not torch.isfinite(torch.stack(torch.aminmax(tensor))).all():
                raise ModelError(
                    f"{name}/{path.name}: '{key[:80]}' holds numbers that are not finite in {tensor.dtype}."
                )
            yield renamed, tensor


def _restore_positions(module: torch.nn.Module, device: torch.device) -> None:
    """Counts 0, 1, 2 ... into CLIP's position_ids, the one kind of buffer that no file holds."""
    import torch

    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_meta:
                part.register_buffer(
                    name, torch.arange(buffer.shape[-1], device=device).expand(1, -1), persistent=False
                )


def _tokenizer(checked: CheckedModel, name: str) -> Any:
    import transformers

    folder = checked.found.path / name
    _, class_name = checked.layout.tokenizers[name][0]
    return read_tokenizer(getattr(transformers, class_name), folder, name)
