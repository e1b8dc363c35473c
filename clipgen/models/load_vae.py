"""Finds, checks and loads a VAE that replaces that of a model: a folder, a single file, or a hub repository."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError, SettingsError
from clipgen.models.convert import convert_vae
from clipgen.models.header import read_header
from clipgen.models.ids import ModelFolder
from clipgen.models.layout import CheckedNetwork, Layout, NetworkFiles
from clipgen.models.load import load_networks
from clipgen.models.network import check_sizes, make_network, read_files
from clipgen.models.single_file import LDM, converted_header, select_tensors

if TYPE_CHECKING:
    import torch

VAE = "vae"


def check_vae(source: ModelFolder, layout: Layout, own: Any, model: str) -> CheckedNetwork:
    """Checks a VAE before its weights are read, and that it can replace a model's own one.

    A single file has no config: it must fit that of the model's VAE. Raises ModelError, and SettingsError if the
    family has no VAE or its latents are others.

    Args:
        source: what `find_vae` returns.
        layout: the layout of the model's family.
        own: the model's VAE, possibly on the meta device; None if it has none.
        model: the name of the model, for messages.
    """
    if VAE not in layout.networks or own is None:
        raise SettingsError(
            f"vae cannot be replaced in model '{model}': its family, {layout.family}, has none", field=VAE
        )
    spec = layout.networks[VAE]
    files = read_files(source.path) if source.weights is None else _single_file(source, dict(own.config))
    name = str(files.config.get("_class_name", type(own).__name__))
    class_ref = next((ref for ref in spec.classes if ref[1] == name), None)
    if class_ref is None:
        works = ", ".join(ref[1] for ref in spec.classes)
        raise ModelError(f"vae '{source.name[:200]}' is of the class '{name[:60]}'. Works: {works}.", field=VAE)
    network = make_network(f"vae '{source.name[:200]}'", class_ref, files, spec)
    _check_latents(network.module.config, own.config, source.name, model)
    return network


def load_vae(name: str, network: CheckedNetwork, device: torch.device, dtype: torch.dtype) -> Any:
    """Returns a checked VAE with its weights; raises ModelError and OutOfMemory."""
    return load_networks(name, {VAE: network}, device, dtype)[VAE]


def _single_file(source: ModelFolder, config: dict[str, Any]) -> NetworkFiles:
    """Returns a VAE file under diffusers' names; a whole checkpoint gives the VAE inside it."""
    assert source.weights is not None
    header = read_header(source.weights)
    prefix = next((each for each in (LDM[VAE][0], "vae.") if any(key.startswith(each) for key in header)), "")
    label = f"vae '{source.weights.name}'"
    read = partial(select_tensors, prefix=prefix, convert=partial(convert_vae, config=config), label=label)
    files = NetworkFiles(config, (source.weights,), converted_header(header, read), read)
    check_sizes(label, files)
    return files


def _check_latents(config: Mapping[str, Any], own: Mapping[str, Any], name: str, model: str) -> None:
    """Raises SettingsError unless a VAE has the latents of the model's own one: as many channels, of the same size."""
    facts = {
        "latent channels": (config["latent_channels"], own["latent_channels"]),
        "levels": (len(config["block_out_channels"]), len(own["block_out_channels"])),
    }
    for what, (given, needed) in facts.items():
        if given != needed:
            raise SettingsError(
                f"vae '{name[:200]}' has {given} {what}, model '{model[:200]}' needs {needed}", field=VAE
            )
