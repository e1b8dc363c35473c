"""Which denoisers a gradient cannot go through: those with quantised weights."""

from __future__ import annotations

from typing import Any

from torch.nn import Module

from clipgen.errors import SettingsError

# Where the layers and weights of quantisers come from: bitsandbytes, optimum-quanto, torchao, GGUF, torch itself.
QUANTISERS = ("bitsandbytes", "optimum.quanto", "quanto", "torchao", "diffusers.quantizers", "torch.ao.nn.quantized")


def check_back_propagation(denoiser: Any, model: str) -> None:
    """Raises SettingsError for a denoiser that `through_unet` cannot send CLIP's gradient through."""
    if isinstance(denoiser, Module) and is_quantised(denoiser):
        raise SettingsError(
            f"through_unet needs a denoiser that back-propagates; '{model}' is quantised. Use through_unet=false.",
            field="through_unet",
        )


def is_quantised(network: Module) -> bool:
    """Tells whether a network is quantised: by the mark that diffusers and transformers leave, by layers or weights."""
    if vars(network).get("is_quantized") is True:
        return True
    layers = (type(module).__module__ for module in network.modules())
    weights = (type(weight.data).__module__ for weight in network.parameters())
    integers = any(not weight.is_floating_point() for weight in network.parameters())
    return integers or any(home.startswith(QUANTISERS) for home in (*layers, *weights))
