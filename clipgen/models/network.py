"""Checks one network's files against its config: sizes, class and the shape of every tensor, without using memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.models.header import Entry, read_headers, read_json, weight_files
from clipgen.models.layout import POSITION_IDS, CheckedNetwork, ClassRef, NetworkFiles, NetworkSpec, add_tied

if TYPE_CHECKING:
    from torch.nn import Module

DEPTHS = frozenset(
    {
        "approximator_layers",
        "depth",
        "layers_per_block",
        "n_layers",
        "n_refiner_layers",
        "num_decoder_blocks",
        "num_encoder_blocks",
        "n_layer",
        "num_hidden_layers",
        "num_layers",
        "num_res_blocks",
        "num_single_layers",
        "transformer_layers_per_block",
    }
)
WIDTHS = frozenset(
    {
        "approximator_hidden_dim",
        "approximator_num_channels",
        "attention_head_dim",
        "axes_dims_rope",
        "block_out_channels",
        "cross_attention_dim",
        "decoder_block_out_channels",
        "encoder_block_out_channels",
        "head_dim",
        "hidden_size",
        "in_channels",
        "intermediate_size",
        "joint_attention_dim",
        "latent_channels",
        "max_position_embeddings",
        "n_embd",
        "n_positions",
        "out_channels",
        "vocab_size",
    }
)


def check_network(folder: Path, spec: NetworkSpec) -> CheckedNetwork:
    """Checks the network in a folder against the first class of `spec`; raises ModelError."""
    return make_network(folder.name, spec.classes[0], read_files(folder), spec)


def read_files(folder: Path) -> NetworkFiles:
    """Reads a network's config and the headers of its weights; raises ModelError if the config needs larger weights."""
    config = read_json(folder / "config.json")
    _, paths = weight_files(folder)
    files = NetworkFiles(config, tuple(paths), read_headers(paths))
    check_sizes(folder.name, files)
    return files


def check_sizes(name: str, files: NetworkFiles) -> None:
    """Raises ModelError if a config has more or wider layers than the weights; building it could use all memory."""
    widest = max((side for entry in files.header.values() for side in entry.shape), default=0)
    bounds = dict.fromkeys(DEPTHS, len(files.header)) | dict.fromkeys(WIDTHS, widest)
    for key, value in _integers(files.config):
        if key in bounds and not 0 <= value <= bounds[key]:
            raise ModelError(f"{name}/config.json: {key} is {value}, but the weights allow {bounds[key]}.")


def _integers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yields every integer of a config with its key, including those in lists and nested configs."""
    for key, value in config.items():
        values = [value]
        while values:
            match values.pop():
                case dict(inner):
                    yield from _integers(inner)
                case list(several):
                    values += several
                case bool():
                    pass
                case int(number):
                    yield key, number


def make_network(name: str, class_ref: ClassRef, files: NetworkFiles, spec: NetworkSpec) -> CheckedNetwork:
    """Builds a network on the meta device and checks the tensors in its files against it; raises ModelError."""
    from huggingface_hub.errors import StrictDataclassError

    config_errors = (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError)
    try:
        with _without_weights(spec), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # diffusers warns about its own classes
            module: Module = _constructor(class_ref)(files.config).eval().requires_grad_(False)
    except (*config_errors, TypeError, ValueError, StrictDataclassError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(f"{name}/config.json is not a valid config of {class_ref[1]}: {reason}") from error
    entries = {spec.rename(key): entry for key, entry in files.header.items()}
    _check_tensors(name, module, add_tied(entries, spec))
    return CheckedNetwork(module, files.paths, spec, files.convert)


def _without_weights(spec: NetworkSpec) -> AbstractContextManager[Any]:
    """Returns a context in which modules are built without weights; computed buffers are real if a spec has them."""
    import torch
    from accelerate import init_empty_weights

    return init_empty_weights(include_buffers=False) if spec.computes_buffers else torch.device("meta")


def _constructor(class_ref: ClassRef) -> Callable[[dict[str, Any]], Any]:
    """Returns a function from a config to a network of a class in clipgen's tables."""
    from clipgen.device import collection_off, set_library_switches

    library, name = class_ref
    set_library_switches()
    with collection_off():
        import diffusers
        import transformers
        from diffusers.pipelines import stable_diffusion

        from clipgen.captioning import clipcap, coca

    libraries: dict[str, Any] = {
        "diffusers": diffusers, "transformers": transformers, "stable_diffusion": stable_diffusion,
        "clipgen.captioning.clipcap": clipcap, "clipgen.captioning.coca": coca,
    }  # fmt: skip
    network: Any = getattr(libraries[library], name)
    if hasattr(network, "config_class"):
        return lambda config: network(network.config_class.from_dict(config))
    return lambda config: network.from_config(config)


def _check_tensors(name: str, module: Module, header: dict[str, Entry]) -> None:
    """Raises ModelError, naming up to three tensors, unless the files hold exactly the network's tensors."""
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    buffers = sorted(
        key
        for key, buffer in module.named_buffers()
        if buffer.is_meta and key not in expected and not key.endswith(POSITION_IDS)
    )
    if buffers:
        raise ModelError(f"{name}/config.json asks for {buffers[0]}, a buffer that no file holds.")
    present = {key: entry.shape for key, entry in header.items() if not key.endswith(POSITION_IDS)}
    faults = {
        "missing": sorted(expected.keys() - present.keys()),
        "unexpected": sorted(present.keys() - expected.keys()),
        "of another shape": sorted(key for key in expected.keys() & present.keys() if expected[key] != present[key]),
    }
    for fault, keys in faults.items():
        if keys:
            names = ", ".join(key[:80] for key in keys[:3])
            raise ModelError(f"{name}: {len(keys)} of its tensors are {fault}: {names}.")
