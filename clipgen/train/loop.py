"""One training loop for all parts of storybook: timed, resumable, averaged, on any number of processes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class Part(Protocol):
    """What is trained: a module, its loss on the batch of a step, and how it shows and saves what it learnt."""

    model: nn.Module

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of one fresh batch and figures for the log."""
        ...

    def show(self, model: nn.Module, folder: Path) -> dict[str, float]:
        """Writes sample sheets of the averaged model into a folder and returns figures measured on held-back data."""
        ...


@dataclass(frozen=True)
class Budget:
    """How long and how fast: `minutes` of training in all, resumed runs added up; the rate decays over the last share."""

    minutes: float
    batch: int
    learning_rate: float
    warmup: int = 200
    decay: float = 0.3
    average: float = 0.999
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    save_minutes: float = 5.0
    show_minutes: float = 10.0

    def rate(self, step: int, progress: float) -> float:
        """Returns the learning rate: linear warm-up by steps, constant, then linear decay to zero by time."""
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * min(1.0, (1 - progress) / self.decay)


@dataclass
class State:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0


def average_decay(step: int, limit: float) -> float:
    """Returns the decay of the running average: short at first, so that early steps do not linger."""
    return min(limit, (1 + step) / (10 + step))


def fit(part: Part, budget: Budget, folder: Path, accelerator: Accelerator, say: Callable[[str], None] = print) -> nn.Module:
    """Trains a part until its minutes are used up, resuming from `folder`; returns the averaged model.

    Writes state.safetensors, state.json, log.jsonl and samples/ into the folder, every file atomically.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(accelerator.process_index)
    optimizer = torch.optim.AdamW(
        part.model.parameters(), budget.learning_rate, budget.betas, weight_decay=budget.weight_decay
    )
    average = {name: value.detach().clone().float() for name, value in part.model.state_dict().items()}
    state = _resume(part.model, average, optimizer, folder)
    torch.manual_seed(accelerator.process_index + 1000 * state.step)
    model, optimizer = accelerator.prepare(part.model, optimizer)
    total, saved, shown = budget.minutes * 60, time.monotonic(), time.monotonic()
    clock = time.monotonic()
    while state.seconds < total:
        for group in optimizer.param_groups:
            group["lr"] = budget.rate(state.step, state.seconds / total)
        with accelerator.autocast():
            loss, figures = part.loss(model, state.step)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizer.step()
            _blend(average, accelerator.unwrap_model(model), average_decay(state.step, budget.average))
        optimizer.zero_grad(set_to_none=True)
        now = time.monotonic()
        state.step, state.seconds, clock = state.step + 1, state.seconds + now - clock, now
        if state.step % 20 == 0 and accelerator.is_main_process:
            _log(folder, {"step": state.step, "minutes": state.seconds / 60, "loss": loss.item(), **figures}, say)
        if accelerator.is_main_process and now - saved > 60 * budget.save_minutes:
            _save(accelerator.unwrap_model(model), average, optimizer, state, folder)
            saved = now
        if accelerator.is_main_process and now - shown > 60 * budget.show_minutes:
            _show(part, accelerator.unwrap_model(model), average, folder, state, say)
            shown = clock = time.monotonic()
    bare = accelerator.unwrap_model(model)
    if accelerator.is_main_process:
        _save(bare, average, optimizer, state, folder)
        _show(part, bare, average, folder, state, say)
    bare.load_state_dict(average)
    return bare.eval()


def _blend(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Moves the running average towards the weights."""
    now = model.state_dict()
    with torch.no_grad():
        targets = [average[name] for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_(targets, [value.float() for value in now.values() if value.is_floating_point()], 1 - decay)


def _show(part: Part, model: nn.Module, average: dict[str, Tensor], folder: Path, state: State, say: Callable[[str], None]) -> None:
    """Lets the part show itself with the averaged weights in place."""
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(average)
    model.eval()
    (folder / "samples").mkdir(exist_ok=True)
    with torch.no_grad():
        figures = part.show(model, folder / "samples")
    _log(folder, {"step": state.step, "minutes": state.seconds / 60, "shown": True, **figures}, say)
    model.load_state_dict(trained)
    model.train()


def _log(folder: Path, line: dict[str, Any], say: Callable[[str], None]) -> None:
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    say("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in line.items()))


def _save(model: nn.Module, average: dict[str, Tensor], optimizer: Any, state: State, folder: Path) -> None:
    """Writes weights, average and optimizer moments, each name prefixed by its kind."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for (name, _), (key, value) in _moments(model, optimizer):
        tensors[f"{key}/{name}"] = value
    facts = {"step": str(state.step), "seconds": str(state.seconds)}
    save_atomically({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, folder / "state.safetensors", facts)


def _moments(model: nn.Module, optimizer: Any) -> Iterator[tuple[tuple[str, Tensor], tuple[str, Tensor]]]:
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            yield (name, parameter), (key, value)


def save_atomically(tensors: dict[str, Tensor], path: Path, facts: dict[str, str] | None = None) -> None:
    """Writes a safetensors file so that the path holds the old one or the new one, never a torn one."""
    partial = path.with_suffix(f".{os.getpid()}.part")
    save_file(tensors, partial, facts or {})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)  # safetensors writes 0600


def _resume(model: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, folder: Path) -> State:
    """Loads what `_save` wrote, if it is there."""
    path = folder / "state.safetensors"
    if not path.exists():
        return State()
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        facts = file.metadata()
    tensors = load_file(path)
    model.load_state_dict({name: tensors[f"model/{name}"] for name in model.state_dict()})
    for name in average:
        average[name].copy_(tensors[f"average/{name}"])
    for name, parameter in model.named_parameters():
        keys = ("step", "exp_avg", "exp_avg_sq")
        optimizer.state[parameter] = {key: tensors[f"{key}/{name}"] for key in keys if f"{key}/{name}" in tensors}
    return State(int(facts["step"]), float(facts["seconds"]))
