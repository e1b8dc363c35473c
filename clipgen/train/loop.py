"""The training loop of all parts of storybook: limited by time, resumable, distributed, with averaged weights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from clipgen.train.checkpoint import State, resume, save_state

Say = Callable[[str], None]
LOG_EVERY = 20
AVERAGE_EVERY = 4  # steps between two updates of the running average, each as expensive as an optimiser step


class Part(Protocol):
    """One part of the model in training: its network, its loss and its evaluation."""

    @property
    def model(self) -> nn.Module:
        """The network that is trained."""
        ...

    def to(self, device: torch.device) -> None:
        """Moves the network, and those that its loss needs, to a device."""
        ...

    def loss(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of the next batch and figures for the log.

        `progress` is the share of the run's minutes that has passed, 0 to 1.
        """
        ...

    def evaluate(self, folder: Path) -> dict[str, float]:
        """Writes samples into a folder and returns figures measured on held-back data."""
        ...


@dataclass(frozen=True)
class Budget:
    """Length and learning rate of a run: `minutes` in all, resumed runs added up.

    The rate decays to zero over the last `decay` of the minutes; `average` is the decay of the averaged weights.
    """

    minutes: float
    batch: int
    learning_rate: float
    warmup: int = 200
    decay: float = 0.3
    average: float = 0.999
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    save_minutes: float = 5.0
    evaluate_minutes: float = 10.0

    def rate(self, step: int, progress: float) -> float:
        """Returns the learning rate: linear warm-up by steps, then constant, then linear decay to zero by time."""
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * min(1.0, max(0.0, 1 - progress) / self.decay)


class ProcessGroup:
    """Synchronises initial weights, gradients and the clock of all processes; does nothing with one process."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.is_distributed = accelerator.num_processes > 1

    def broadcast_weights(self, model: nn.Module) -> None:
        """Copies the weights of the first process to the others."""
        if self.is_distributed:
            broadcast([value.data for value in (*model.parameters(), *model.buffers())])

    def average_gradients(self, model: nn.Module) -> None:
        """Replaces each gradient by its mean over the processes, in one all-reduce."""
        if not self.is_distributed:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        mean = self.accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
        for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def first_process(self, seconds: float) -> float:
        """Returns the seconds of the first process, so that all stop at the same step."""
        if not self.is_distributed:
            return seconds
        return float(broadcast(torch.tensor(seconds, dtype=torch.float64, device=self.accelerator.device)))


class Clock:
    """Counts training seconds without pauses, and says when a periodic task is due."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.next_time: dict[str, float] = {}

    def lap(self) -> float:
        """Returns the seconds since the last lap or resumption."""
        now = time.monotonic()
        passed, self.last = now - self.last, now
        return passed

    def due(self, task: str, minutes: float) -> bool:
        """Returns whether `minutes` have passed since this last returned True, or since the first call."""
        now = time.monotonic()
        if now < self.next_time.setdefault(task, now + 60 * minutes):
            return False
        self.next_time[task] = now + 60 * minutes
        return True

    def resume(self) -> None:
        """Leaves out the time since the last lap."""
        self.last = time.monotonic()


def fit(part: Part, budget: Budget, folder: Path, accelerator: Accelerator, say: Say = print) -> nn.Module:
    """Trains a part until its minutes are used up, resuming from `folder`; returns the network with averaged weights.

    Gradients are averaged over processes. Writes state.safetensors (atomically), log.jsonl and samples/.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part.to(accelerator.device)
    model, main = part.model.train(), accelerator.is_main_process
    optimizer = torch.optim.AdamW(
        model.parameters(), budget.learning_rate, budget.betas, weight_decay=budget.weight_decay, fused=True
    )
    average = {name: value.detach().clone().float() for name, value in model.state_dict().items()}
    state = resume(model, average, optimizer, folder)
    processes = ProcessGroup(accelerator)
    processes.broadcast_weights(model)
    torch.manual_seed(accelerator.process_index + 1000 * state.step)
    clock, total = Clock(), budget.minutes * 60
    while state.seconds < total:
        progress = state.seconds / total
        for group in optimizer.param_groups:
            group["lr"] = budget.rate(state.step, progress)
        loss, figures = _step(part, optimizer, processes, state.step, progress)
        if state.step % AVERAGE_EVERY == 0:
            _update_average(average, model, _decay(state.step, budget.average) ** AVERAGE_EVERY)
        state = State(state.step + 1, processes.first_process(state.seconds + clock.lap()))
        if main and state.step % LOG_EVERY == 0:
            _log(folder, state, {"loss": loss, **figures}, say)
        if main and clock.due("save", budget.save_minutes):
            save_state(model, average, optimizer, state, folder)
        if main and clock.due("evaluate", budget.evaluate_minutes):
            _evaluate(part, average, folder, state, say)
            clock.resume()
    if main:
        save_state(model, average, optimizer, state, folder)
        _evaluate(part, average, folder, state, say)
    accelerator.wait_for_everyone()
    model.load_state_dict(average)
    return model.eval()


def _step(
    part: Part, optimizer: torch.optim.Optimizer, processes: ProcessGroup, step: int, progress: float
) -> tuple[float, dict[str, float]]:
    """Takes one optimiser step, unless a gradient is not finite; returns the loss and its figures."""
    with processes.accelerator.autocast():
        loss, figures = part.loss(step, progress)
    loss.backward()
    processes.average_gradients(part.model)
    norm = nn.utils.clip_grad_norm_(part.model.parameters(), 1.0)
    if torch.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item(), figures


def _decay(step: int, limit: float) -> float:
    """Returns the decay of the running average: short at first, so that early steps do not linger."""
    return min(limit, (1 + step) / (10 + step))


def _update_average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Moves the running average towards the current weights."""
    current = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    with torch.no_grad():
        averages, values = [average[name] for name in current], [value.float() for value in current.values()]
        torch._foreach_lerp_(averages, values, 1 - decay)


def _evaluate(part: Part, average: dict[str, Tensor], folder: Path, state: State, say: Say) -> None:
    """Evaluates the part with the averaged weights in place."""
    current = {name: value.clone() for name, value in part.model.state_dict().items()}
    part.model.load_state_dict(average)
    part.model.eval()
    (folder / "samples").mkdir(exist_ok=True)
    with torch.no_grad():
        figures = part.evaluate(folder / "samples")
    _log(folder, state, {"evaluated": True, **figures}, say)
    part.model.load_state_dict(current)
    part.model.train()


def _log(folder: Path, state: State, figures: dict[str, Any], say: Say) -> None:
    line = {"step": state.step, "minutes": state.seconds / 60, **figures}
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    say(
        "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in line.items())
    )
