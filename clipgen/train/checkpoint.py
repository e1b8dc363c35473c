"""Training state on disk: weights, their running average and AdamW's moments in one safetensors file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipgen.errors import ClipgenError

FILE = "state.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's


@dataclass(frozen=True)
class State:
    """Progress of a run: optimiser steps taken and seconds trained."""

    step: int = 0
    seconds: float = 0.0


def save_state(
    model: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, state: State, folder: Path
) -> None:
    """Writes everything that `resume` needs; each tensor name is prefixed by its kind."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for name, parameter in model.named_parameters():
        moments = optimizer.state.get(parameter, {})
        tensors |= {f"{key}/{name}": moments[key] for key in MOMENTS if key in moments}
    facts = {"step": str(state.step), "seconds": str(state.seconds)}
    save_atomically(tensors, folder / FILE, facts)


def resume(model: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, folder: Path) -> State:
    """Loads a saved state into model, average and optimiser; returns a fresh State if there is none.

    Raises ClipgenError if the state is of another network.
    """
    path = folder / FILE
    if not path.exists():
        return State()
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    tensors = load_file(path)
    shapes = {name.removeprefix("model/"): t.shape for name, t in tensors.items() if name.startswith("model/")}
    if shapes != {name: value.shape for name, value in model.state_dict().items()}:
        raise ClipgenError(f"'{path}' is the state of another network. Choose another --out to start from nothing.")
    model.load_state_dict({name: tensors[f"model/{name}"] for name in model.state_dict()})
    for name, value in average.items():
        value.copy_(tensors[f"average/{name}"])
    for name, parameter in model.named_parameters():
        moments = {key: tensors[f"{key}/{name}"] for key in MOMENTS if f"{key}/{name}" in tensors}
        if moments:
            optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in moments.items()}
    return State(int(facts["step"]), float(facts["seconds"]))


def save_atomically(tensors: dict[str, Tensor], path: Path, facts: dict[str, str]) -> None:
    """Writes a safetensors file atomically: the path holds the old file or the new one, never a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, partial, facts)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    mask = os.umask(0)
    os.umask(mask)
    partial.chmod(0o666 & ~mask)  # safetensors writes 0600
    partial.replace(path)
