"""The files of LoRAs: which layers they change, and whether these fit the networks of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.models import Layout
from clipgen.models.adapter_file import check_file
from clipgen.models.header import Entry, read_metadata
from clipgen.settings.checks import printable

if TYPE_CHECKING:
    from torch import Tensor

PEFT = "peft>=0.21,<0.22"
MAX_RANK = 1024
RAW_PEFT = "base_model.model."  # the prefix in files that PEFT itself writes; they hold one network
OTHER_METHODS = {"hada_": "LoHa", "lokr_": "LoKr", "dora_scale": "DoRA", "oft_": "OFT", "lora_mid": "a Tucker LoRA"}
# Keys that only one architecture has -> its name.
KEYS_OF = {
    "single_transformer_blocks": "Flux",
    "lora_unet_single_blocks": "Flux",
    "diffusion_model.single_blocks": "Flux",
    "joint_blocks": "Stable Diffusion 3",
    "add_k_proj": "Stable Diffusion 3",
}
WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "the SDXL refiner", 2048: "Stable Diffusion XL"}
BASE_MODEL = ("modelspec.architecture", "ss_base_model_version")  # metadata of trainers
LAYER = re.compile(r"(.+)\.lora_([AB])\.(weight|bias)")
CONVERSION_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def check_lora(path: Path, layout: Layout, networks: Mapping[str, Any], model: str) -> None:
    """Checks that a file is a LoRA whose layers fit the networks of a model, by name and shape.

    Only the header of the file is read. The networks may be on the meta device. Raises ModelError, which says what the
    LoRA is made for if that is known.
    """
    import torch

    try:
        import peft  # noqa: F401  diffusers' loaders need it
    except ImportError as error:
        raise ModelError(
            f"LoRA needs the package peft, which is missing: pip install '{PEFT}'", field="lora"
        ) from error
    header = check_file("lora", path)
    for part, method in OTHER_METHODS.items():
        if any(part in key for key in header):
            raise refusal(path, f"is {method}, which is not supported; plain LoRA works.")
    tensors = {
        key: torch.ones(()) if key.endswith("alpha") else torch.empty(entry.shape, device="meta")
        for key, entry in header.items()
    }
    networks = {name: networks[name] for name in network_names(layout) if name in networks}
    try:
        modules = {name: dict(network.named_modules()) for name, network in networks.items()}
        faults = (_fault(modules, *layer) for layer in _layers(tensors, layout, networks))
        fault = next(filter(None, faults), None)
    except CONVERSION_ERRORS as error:
        fault = first_line(error)
    if fault is not None:
        made_for = _made_for(header, read_metadata(path))
        made_for = f" is made for {made_for} and" if made_for else ""
        raise refusal(path, f"{made_for} does not fit model '{model}', {_describe(layout, networks)}: {fault}.".strip())


def read_lora(path: Path, layout: Layout, networks: Mapping[str, Any], model: str) -> dict[str, Tensor]:
    """Returns the tensors of a LoRA file after all checks; raises ModelError also for numbers that are not finite."""
    import torch
    from safetensors.torch import load_file

    check_lora(path, layout, networks, model)
    tensors = load_file(path)
    for key, tensor in tensors.items():
        if tensor.numel() and not torch.isfinite(torch.stack(torch.aminmax(tensor.float()))).all():
            raise refusal(path, f"holds numbers that are not finite: '{printable(key)}'.")
    return tensors


def refusal(path: Path, reason: str) -> ModelError:
    """Returns the error about a LoRA file."""
    return ModelError(f"LoRA '{printable(path.name)}' {reason}", field="lora")


def first_line(error: Exception) -> str:
    """Returns the first line of an error of diffusers or PEFT."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160].rstrip(".")


def loader_class(layout: Layout) -> Any:
    """Returns the class of diffusers that loads LoRAs of a family."""
    from diffusers.loaders import lora_pipeline

    assert layout.lora_loader is not None, "ModelLimits refuses LoRAs for other families"
    return getattr(lora_pipeline, layout.lora_loader)


def network_names(layout: Layout) -> Sequence[str]:
    """Returns the names of the networks that a LoRA of the family can change, the denoiser first."""
    return () if layout.lora_loader is None else tuple(loader_class(layout)._lora_loadable_modules)


def from_raw_peft(tensors: Mapping[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
    """Returns the tensors of a UNet's LoRA that PEFT itself wrote, under diffusers' names and with alpha applied."""
    names = {key: "unet." + key.removeprefix(RAW_PEFT) for key in tensors}
    return {names[key]: tensor * scale if ".lora_B." in key else tensor for key, tensor in tensors.items()}


def _layers(
    tensors: dict[str, Tensor], layout: Layout, networks: Mapping[str, Any]
) -> Iterator[tuple[str, str, str, str, Tensor]]:
    """Yields (network, layer, A or B, weight or bias, tensor) for each tensor, as diffusers converts its name.

    A name that is not understood is yielded as the layer of the network "".
    """
    from diffusers.utils.state_dict_utils import (
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    names = network_names(layout)
    if "unet" in names:
        tensors = from_raw_peft(tensors) if any(key.startswith(RAW_PEFT) for key in tensors) else tensors
        state, _ = loader_class(layout).lora_state_dict(dict(tensors), unet_config=networks["unet"].config)
    else:
        state = loader_class(layout).lora_state_dict(dict(tensors))
    for name in names:
        own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
        if own and name.startswith("text_encoder"):
            own = convert_state_dict_to_peft(convert_state_dict_to_diffusers(own))
            if not hasattr(networks[name], "text_model"):  # transformers 5.6 has no such submodule
                own = {key.removeprefix("text_model."): value for key, value in own.items()}
        elif own and "lora_A" not in next(iter(own)):
            own = convert_unet_state_dict_to_peft(own)
        for key, value in own.items():
            match = LAYER.fullmatch(key)
            yield (name, match[1], match[2], match[3], value) if match else ("", key, "", "", value)
    yield from (("", key, "", "", value) for key, value in state.items())


def _fault(
    modules: Mapping[str, Mapping[str, Any]], name: str, layer: str, matrix: str, kind: str, tensor: Tensor
) -> str | None:
    """Returns why one tensor of a LoRA does not fit the modules of the networks, None if it fits."""
    if layer not in modules.get(name, {}):
        return f"it has no layer '{printable(layer)}'"
    weight = getattr(modules[name][layer], "weight", None)
    if weight is None or weight.ndim not in (2, 4):
        return f"its layer '{printable(layer)}' has no matrix"
    if kind == "bias":
        return None
    rank = tensor.shape[0 if matrix == "A" else 1]
    if rank > MAX_RANK:
        return f"rank {rank:,} is over {MAX_RANK:,}"
    own, expected = (tensor.shape[1], weight.shape[1]) if matrix == "A" else (tensor.shape[0], weight.shape[0])
    if tensor.ndim != weight.ndim or own != expected:
        return f"its layer '{printable(layer)}' has {expected} {'inputs' if matrix == 'A' else 'outputs'}, not {own}"
    return None


def _made_for(header: Mapping[str, Entry], metadata: Mapping[str, str]) -> str:
    """Returns the architecture that a LoRA is made for, "" if it is unknown."""
    for part, name in KEYS_OF.items():
        if any(part in key for key in header):
            return name
    for key, entry in header.items():
        if re.search(r"attn2.*to_k.*(down|lora_A)", key) and len(entry.shape) >= 2:
            width = entry.shape[1]
            return WIDTHS.get(width, f"cross-attention to text of width {width}")
    return next((printable(metadata[key]) for key in BASE_MODEL if metadata.get(key)), "")


def _describe(layout: Layout, networks: Mapping[str, Any]) -> str:
    """Returns what a model is, in the words of `_made_for`."""
    width = networks["unet"].config.cross_attention_dim if "unet" in networks else None
    width_text = f" with cross-attention to text of width {width}" if width is not None else ""
    return f"a {layout.family} model{width_text}"
