"""Refuses `through_unet` for denoisers with quantised weights, through which no gradient can go."""

from __future__ import annotations

from typing import Any

from torch.nn import Module

from clipgen.errors import SettingsError

# Modules of the layer and tensor classes of bitsandbytes, optimum-quanto, torchao, diffusers' GGUF and torch itself.
QUANTISERS = ("bitsandbytes", "optimum.quanto", "quanto", "torchao", "diffusers.quantizers", "torch.ao.nn.quantized")


def check_back_propagation(denoiser: Any, model: str) -> None:
    """Raises SettingsError if `through_unet` cannot back-propagate through the denoiser."""
    if isinstance(denoiser, Module) and is_quantised(denoiser):
        raise SettingsError(
            f"through_unet needs a denoiser that back-propagates; '{model}' is quantised. Use through_unet=false.",
            field="through_unet",
        )


def is_quantised(network: Module) -> bool:
    """Tells whether a network is quantised, by the mark of diffusers and transformers or by its layers and weights."""
    if vars(network).get("is_quantized") is True:
        return True
    layers = (type(layer).__module__ for layer in network.modules())
    tensors = (type(weight.data).__module__ for weight in network.parameters())
    has_integers = any(not weight.is_floating_point() for weight in network.parameters())
    return has_integers or any(module.startswith(QUANTISERS) for module in (*layers, *tensors))
