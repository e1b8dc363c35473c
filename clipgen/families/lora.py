"""LoRA: low-rank changes of the weights of a denoiser and its text encoders, loaded by diffusers and PEFT.

Hu et al. 2021 (arXiv 2106.09685): W x becomes W x + weight * alpha / rank * B A x, with A [rank, in] and B [out, rank].
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen.families.lora_file import (
    CONVERSION_ERRORS,
    RAW_PEFT,
    first_line,
    from_raw_peft,
    loader_class,
    network_names,
    read_lora,
    refusal,
)
from clipgen.models import Layout, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from clipgen.families import Family


@dataclass(frozen=True)
class Lora:
    """A LoRA file with its weight and its SHA-256."""

    path: Path
    weight: float
    sha256: str


class LoraAdapters:
    """The LoRAs in the networks of a loaded model, active only while an image that uses them is generated.

    `use` is cheap if the LoRAs are active already. Without LoRAs, the layers compute exactly what they did before.
    """

    def __init__(self, family: Family, layout: Layout, model: str) -> None:
        self._family, self._layout, self._model = family, layout, model
        self._loader: Any = None
        self._loaded: tuple[tuple[Path, str], ...] = ()
        self._active: tuple[Lora, ...] = ()

    @cached_property
    def _networks(self) -> dict[str, Any]:
        encoders = [encoder.model for encoder in self._family.text_encoders]
        return dict(zip(network_names(self._layout), (self._family.denoiser, *encoders), strict=False))

    def use(self, loras: tuple[Lora, ...]) -> None:
        """Makes these LoRAs, and no others, active; raises ModelError for a file that does not fit the model."""
        if loras == self._active:
            return
        if loras:
            self._load(loras)
            self._loader.enable_lora()
            names = [_adapter_name(k) for k in range(len(loras))]
            self._loader.set_adapters(names, [lora.weight for lora in loras])
        else:
            self._loader.disable_lora()
        self._freeze()
        self._active = loras

    def remove(self) -> None:
        """Removes all LoRA layers from the networks, which are then as they were loaded."""
        if self._loader is not None:
            self._loader.unload_lora_weights()
            self._loader = None
        self._loaded = self._active = ()

    def _load(self, loras: tuple[Lora, ...]) -> None:
        """Injects the layers of the files, unless they are the ones that are loaded."""
        files = tuple((lora.path, lora.sha256) for lora in loras)
        if files == self._loaded:
            return
        self.remove()
        tensors = [read_lora(lora.path, self._layout, self._networks, self._model) for lora in loras]
        self._loader = _make_loader(self._layout, self._networks)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # of the second LoRA
                for k, (lora, own) in enumerate(zip(loras, tensors, strict=True)):
                    _inject(self._loader, lora.path, own, _adapter_name(k))
        except CONVERSION_ERRORS as error:
            self.remove()
            raise refusal(lora.path, f"cannot be loaded: {first_line(error)}.") from error
        self._freeze()
        self._loaded = files

    def _freeze(self) -> None:
        """Turns off gradients to the weights, which PEFT turns on for active layers."""
        for network in self._networks.values():
            network.requires_grad_(False)


def _adapter_name(k: int) -> str:
    return f"lora_{k}"


def _make_loader(layout: Layout, networks: Mapping[str, Any]) -> Any:
    """Returns an object with diffusers' methods of the family's pipeline for LoRA, and with nothing else of it."""
    loader = type("LoraLoader", (loader_class(layout),), {})()
    vars(loader).update(networks, components=dict(networks), hf_device_map=None)
    return loader


def _inject(loader: Any, path: Path, tensors: dict[str, Tensor], name: str) -> None:
    """Adds the layers of a file to the networks. diffusers reads the metadata of files that it wrote itself."""
    if any(key.startswith(RAW_PEFT) for key in tensors):
        loader.load_lora_weights(from_raw_peft(tensors, _raw_peft_scale(path)), adapter_name=name)
    else:
        loader.load_lora_weights(
            str(path.parent), weight_name=path.name, adapter_name=name, use_safetensors=True, local_files_only=True
        )


def _raw_peft_scale(path: Path) -> float:
    """Returns alpha / rank from adapter_config.json in the folder of a PEFT file; 1 without it."""
    config = path.parent / "adapter_config.json"
    values = read_json(config) if config.is_file() else {}
    alpha, rank = values.get("lora_alpha"), values.get("r")
    if not (isinstance(alpha, int | float) and isinstance(rank, int) and rank > 0):
        return 1.0
    return float(alpha / (rank**0.5 if values.get("use_rslora") else rank))
