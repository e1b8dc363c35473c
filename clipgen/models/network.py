"""Holds one network's files against its config: sizes, class, and every tensor's shape, without filling any memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.models.header import Entry, read_headers, read_json, weight_files
from clipgen.models.layout import POSITIONS, CheckedNetwork, ClassRef, NetworkFiles, NetworkSpec, with_tied

if TYPE_CHECKING:
    from torch.nn import Module

DEPTHS = frozenset(
    {
        "layers_per_block",
        "num_decoder_blocks",
        "num_encoder_blocks",
        "n_layer",
        "num_hidden_layers",
        "num_layers",
        "num_single_layers",
        "transformer_layers_per_block",
    }
)
WIDTHS = frozenset(
    {
        "block_out_channels",
        "cross_attention_dim",
        "decoder_block_out_channels",
        "encoder_block_out_channels",
        "hidden_size",
        "in_channels",
        "intermediate_size",
        "latent_channels",
        "max_position_embeddings",
        "n_embd",
        "n_positions",
        "out_channels",
        "vocab_size",
    }
)


def check_network(folder: Path, part: NetworkSpec) -> CheckedNetwork:
    """Checks one network that stands alone in its folder, against the first class of `part`; raises ModelError."""
    return make_network(folder.name, part.classes[0], read_files(folder), part)


def read_files(folder: Path) -> NetworkFiles:
    """Reads one network's config and the headers of its weights; raises ModelError if the two disagree on sizes."""
    config = read_json(folder / "config.json")
    _, paths = weight_files(folder)
    files = NetworkFiles(config, tuple(paths), read_headers(paths))
    _check_sizes(folder.name, files)
    return files


def _check_sizes(name: str, files: NetworkFiles) -> None:
    """Raises ModelError if a config asks for more layers or wider ones than the weights can fill."""
    widest = max((side for entry in files.header.values() for side in entry.shape), default=0)
    bounds = dict.fromkeys(DEPTHS, len(files.header)) | dict.fromkeys(WIDTHS, widest)
    for key, value in _integers(files.config):
        if key in bounds and not 0 <= value <= bounds[key]:
            raise ModelError(f"{name}/config.json: {key} is {value}, but the weights reach {bounds[key]}.")


def _integers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yields every integer of a config with its key, those in lists and nested configs too."""
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


def make_network(name: str, pair: ClassRef, files: NetworkFiles, part: NetworkSpec) -> CheckedNetwork:
    """Builds a network that has shapes and no memory, and holds the files' tensors against them."""
    import torch
    from huggingface_hub.errors import StrictDataclassError

    nonsense = (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError)
    try:
        with torch.device("meta"):
            module: Module = _maker(pair)(files.config).eval().requires_grad_(False)
    except (*nonsense, TypeError, ValueError, StrictDataclassError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(f"{name}/config.json describes no {pair[1]}: {reason}") from error
    entries = {part.rename(key): entry for key, entry in files.header.items()}
    _check_tensors(name, module, with_tied(entries, part))
    return CheckedNetwork(module, files.paths, part)


def _maker(pair: ClassRef) -> Callable[[dict[str, Any]], Any]:
    """Returns what makes a network of a class from its config; the pair comes from a family's own table."""
    from clipgen.device import collection_off, set_library_switches

    library, name = pair
    set_library_switches()
    with collection_off():
        import diffusers
        import transformers
        from diffusers.pipelines import stable_diffusion

        from clipgen.captioning import clipcap, coca

    known: dict[str, Any] = {
        "diffusers": diffusers, "transformers": transformers, "stable_diffusion": stable_diffusion,
        "clipgen.captioning.clipcap": clipcap, "clipgen.captioning.coca": coca,
    }  # fmt: skip
    network: Any = getattr(known[library], name)
    if hasattr(network, "config_class"):
        return lambda config: network(network.config_class.from_dict(config))
    return lambda config: network.from_config(config)


def _check_tensors(name: str, module: Module, header: dict[str, Entry]) -> None:
    """Raises ModelError, naming the first three, unless the files' tensors are exactly the network's."""
    wanted = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    tables = sorted(key for key, _ in module.named_buffers() if key not in wanted and not key.endswith(POSITIONS))
    if tables:
        raise ModelError(f"{name}/config.json asks for {tables[0]}, a table that no file holds.")
    present = {key: entry.shape for key, entry in header.items() if not key.endswith(POSITIONS)}
    faults = {
        "missing": sorted(wanted.keys() - present.keys()),
        "unexpected": sorted(present.keys() - wanted.keys()),
        "of another shape": sorted(key for key in wanted.keys() & present.keys() if wanted[key] != present[key]),
    }
    for fault, keys in faults.items():
        if keys:
            shown = ", ".join(key[:80] for key in keys[:3])
            raise ModelError(f"{name}: {len(keys)} of its tensors are {fault}: {shown}.")
