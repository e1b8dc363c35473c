"""Loads the weights of checked networks, with the requested dtype and device, and their tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.models.gguf import load_gguf
from clipgen.models.layout import POSITION_IDS, CheckedModel, CheckedNetwork, NetworkSpec, add_tied

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TEXT_ENCODER = "text_encoder"  # the start of the names of text encoders
RESERVE = 2 * 2**30  # bytes that the images need besides the networks
LoadProgress = Callable[[int, int], object]  # (bytes loaded, bytes in total)


def ignore_progress(done: int, total: int) -> None:
    """A LoadProgress that does nothing."""


def load_components(
    checked: CheckedModel, device: torch.device, dtype: torch.dtype, progress: LoadProgress = ignore_progress
) -> dict[str, Any]:
    """Returns the model's loaded networks and its tokenizers by component name; calls `progress` after each tensor.

    Raises OutOfMemory before reading anything if the weights do not fit, and ModelError for weights that are not
    finite and for damaged tokenizers.
    """
    networks = load_networks(checked.source.name, checked.networks, device, dtype, progress)
    return {**networks, **{name: _tokenizer(checked, name) for name in checked.tokenizers}}


def load_networks(
    model: str,
    networks: Mapping[str, CheckedNetwork],
    device: torch.device,
    dtype: torch.dtype,
    progress: LoadProgress = ignore_progress,
) -> dict[str, Any]:
    """Returns checked networks with their weights, by name; raises OutOfMemory and ModelError as load_components."""
    from clipgen.device import check_memory, free_memory

    sizes = {name: _memory(network, dtype) for name, network in networks.items()}
    places, total = choose_places(sizes, device, free_memory(device)), sum(sizes.values())
    for place in set(places.values()):
        check_memory(sum(size for name, size in sizes.items() if places[name] == place), place, model)
    done = 0
    for name, network in networks.items():
        for size in _load_weights(name, network, places[name], dtype):
            done += size
            progress(min(done, total), total)
    return {name: network.module for name, network in networks.items()}


def choose_places(sizes: Mapping[str, int], device: torch.device, free: int | None) -> dict[str, torch.device]:
    """Returns where each network is loaded to, by its size in bytes and the free bytes of the device.

    If they do not all fit on a CUDA device, together with what the images need, the text encoders wait in the memory of
    the CPU; see clipgen.pipeline.offload.
    """
    import torch

    places = dict.fromkeys(sizes, device)
    if device.type == "cuda" and free is not None and sum(sizes.values()) + RESERVE > free:
        places |= {name: torch.device("cpu") for name in sizes if name.startswith(TEXT_ENCODER)}
    return places


def _tensor_dtype(key: str, tensor: Tensor, spec: NetworkSpec, dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype that one tensor of a network is loaded with; integer tensors keep theirs."""
    import torch

    if not tensor.is_floating_point():
        return tensor.dtype
    overflows = dtype == torch.float16 and any(part in key for part in spec.not_half)
    return torch.float32 if spec.full_precision or overflows else dtype


def _memory(network: CheckedNetwork, dtype: torch.dtype) -> int:
    """Returns the bytes that a network will take; tied tensors count once, and quantised ones as their file."""
    if network.paths[0].suffix.lower() == ".gguf":
        return network.paths[0].stat().st_size
    spec, state = network.spec, network.module.state_dict()
    untied = {key: tensor for key, tensor in state.items() if spec.tied.get(key, key) >= key}
    return sum(tensor.numel() * _tensor_dtype(key, tensor, spec, dtype).itemsize for key, tensor in untied.items())


def _load_weights(name: str, network: CheckedNetwork, device: torch.device, dtype: torch.dtype) -> Iterator[int]:
    """Loads the weights of one network; yields the bytes of each tensor once it is on the device."""
    if network.paths[0].suffix.lower() == ".gguf":
        yield from load_gguf(network, device, dtype)
        return
    state: dict[str, Tensor] = {}
    for key, tensor in _read_tensors(name, network, dtype):
        state[key] = tensor.to(device)
        yield tensor.nbytes
    network.module.load_state_dict(add_tied(state, network.spec), assign=True)
    _place_buffers(network.module, device)


def _read_tensors(name: str, network: CheckedNetwork, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yields each tensor of a network's files, under its current name, after checking that it is finite."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    expected = network.module.state_dict()
    for path in network.paths:
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ModelError(f"{name}/{path.name} cannot be read: {error}") from None
        if network.convert is not None:
            tensors = network.convert(tensors)
        for key, tensor in tensors.items():
            if key.endswith(POSITION_IDS):
                continue
            renamed = network.spec.rename(key)
            target = _tensor_dtype(renamed, expected.get(renamed, tensor), network.spec, dtype)
            tensor = tensor.to(target, copy=True)  # a copy, because load_file maps the file into memory
            if tensor.numel() and not torch.isfinite(torch.stack(torch.aminmax(tensor))).all():
                raise ModelError(
                    f"{name}/{path.name}: '{key[:80]}' holds numbers that are not finite in {tensor.dtype}."
                )
            yield renamed, tensor


def _place_buffers(module: torch.nn.Module, device: torch.device) -> None:
    """Moves the buffers that no file holds to the device; CLIP's position_ids, not computed yet, become 0, 1, 2 ..."""
    import torch

    for submodule in module.modules():
        for name, buffer in submodule.named_buffers(recurse=False):
            if buffer.is_meta:
                ids = torch.arange(buffer.shape[-1], device=device).expand(1, -1)
                submodule.register_buffer(name, ids, persistent=False)
            else:
                setattr(submodule, name, buffer.to(device))


def _tokenizer(checked: CheckedModel, name: str) -> Any:
    import transformers

    _, class_name = checked.layout.tokenizers[name][0]
    files = checked.tokenizers[name]
    return read_tokenizer(getattr(transformers, class_name), files.folder, name, **files.options)


def read_tokenizer(tokenizer_class: Any, folder: Path, label: str, **options: Any) -> Any:
    """Returns a transformers tokenizer from a folder, without the hub; raises ModelError that begins with `label`."""
    try:
        return tokenizer_class.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # the tokenizers library raises nothing narrower for a damaged file
        raise ModelError(f"{label} cannot be read: {(str(error).splitlines() or [''])[0][:160]}") from error
