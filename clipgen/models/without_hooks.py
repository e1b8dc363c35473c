"""A network that shares its weights with another one, but not its hooks: for networks that belong to the caller."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

from torch import Tensor
from torch.nn import Module, Parameter

OFFLOAD_HOOKS = ("_hf_hook", "_diffusers_hook")  # attributes that accelerate and diffusers set on a module
REPLACED_METHODS = ("forward", "_old_forward", "decode", "encode")  # by hooks, or by the user with a compiled one
COMPILED = "_orig_mod"  # the submodule of what torch.compile returns


def is_wrapped(network: Module) -> bool:
    """Tells whether a network is compiled, or accelerate or diffusers move its weights to the device when it runs."""
    hooked = any(not vars(module).keys().isdisjoint(OFFLOAD_HOOKS) for module in network.modules())
    return hooked or COMPILED in network._modules


def without_hooks(module: Module) -> Module:
    """Returns a module that shares the weights of another, but none of its hooks.

    Hooks of offloading move weights, and replace `forward`. A deep copy is no alternative: the streams and threads of
    group offloading cannot be copied. Weights that are offloaded at the moment stay where they are. Of a compiled
    module it takes the original.
    """
    return _without_hooks(module._modules.get(COMPILED) or module, {})


def _without_hooks(module: Module, done: dict[int, Module]) -> Module:
    if id(module) in done:
        return done[id(module)]
    clone = done[id(module)] = object.__new__(type(module))
    state = {name: value for name, value in vars(module).items() if name not in (*OFFLOAD_HOOKS, *REPLACED_METHODS)}
    state |= {name: OrderedDict() for name in state if "_hooks" in name}
    state["_parameters"] = {
        name: None if weight is None else _shared(module, name, weight) for name, weight in module._parameters.items()
    }
    state["_buffers"] = {
        name: None if buffer is None else _loaded(module, name, buffer) for name, buffer in module._buffers.items()
    }
    state["_modules"] = {
        name: None if child is None else _without_hooks(child, done) for name, child in module._modules.items()
    }
    vars(clone).update(state)
    return clone


def _shared(module: Module, name: str, weight: Parameter) -> Parameter:
    """Returns a parameter with the same storage; the parameters of quantisers have a class and state of their own."""
    if type(weight) is not Parameter:
        return weight
    return Parameter(_loaded(module, name, weight), requires_grad=False)


def _loaded(module: Module, name: str, tensor: Tensor) -> Tensor:
    """Returns a weight of a module; sequential offloading keeps it in a hook, with a meta tensor in its place."""
    if tensor.device.type != "meta":
        return tensor.detach()
    from accelerate.hooks import AlignDevicesHook, SequentialHook

    hook: Any = module._hf_hook
    hooks = hook.hooks if isinstance(hook, SequentialHook) else (hook,)
    (stored,) = (each.weights_map[name] for each in hooks if isinstance(each, AlignDevicesHook) and each.weights_map)
    return cast(Tensor, stored).detach()
