"""One training loop for all parts of storybook: timed, resumable, averaged, on any number of processes."""

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
BLEND_EVERY = 4  # steps between two updates of the running average, which costs as much as an optimiser step


class Part(Protocol):
    """What is trained: a module, its loss on the batch of a step, and how it shows what it learnt."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        ...

    def to(self, device: torch.device) -> None:
        """Moves the model and all it needs beside it to a device."""
        ...

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of one fresh batch and figures for the log."""
        ...

    def show(self, folder: Path) -> dict[str, float]:
        """Writes sample sheets into a folder and returns figures measured on held-back data."""
        ...


@dataclass(frozen=True)
class Budget:
    """How long and how fast: `minutes` in all, resumed runs added up; the rate decays over the last share."""

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
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * min(1.0, max(0.0, 1 - progress) / self.decay)


class Together:
    """Keeps processes in step: the same weights at the start, mean gradients, one clock; alone it does nothing."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.several = accelerator.num_processes > 1

    def start_alike(self, model: nn.Module) -> None:
        """Gives every process the first one's weights."""
        if self.several:
            broadcast([value.data for value in (*model.parameters(), *model.buffers())])

    def average_gradients(self, model: nn.Module) -> None:
        """Replaces every gradient by its mean over the processes, in one exchange."""
        if not self.several:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        mean = self.accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
        for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def agreed(self, seconds: float) -> float:
        """Returns the first process's seconds, so that all stop at the same step."""
        if not self.several:
            return seconds
        return float(broadcast(torch.tensor(seconds, dtype=torch.float64, device=self.accelerator.device)))


class Clock:
    """Counts training seconds, and tells when something is due again; what is spent while paused does not count."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.due_at: dict[str, float] = {}

    def lap(self) -> float:
        """Returns the seconds since the last lap or resumption."""
        now = time.monotonic()
        passed, self.last = now - self.last, now
        return passed

    def due(self, what: str, minutes: float) -> bool:
        """Tells whether `minutes` have passed since this last returned True (or was first asked)."""
        now = time.monotonic()
        if now < self.due_at.setdefault(what, now + 60 * minutes):
            return False
        self.due_at[what] = now + 60 * minutes
        return True

    def resume(self) -> None:
        """Forgets the time since the last lap."""
        self.last = time.monotonic()


def fit(part: Part, budget: Budget, folder: Path, accelerator: Accelerator, say: Say = print) -> nn.Module:
    """Trains a part until its minutes are used up, resuming from `folder`; returns the averaged model.

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
    together = Together(accelerator)
    together.start_alike(model)
    torch.manual_seed(accelerator.process_index + 1000 * state.step)
    clock, total = Clock(), budget.minutes * 60
    while state.seconds < total:
        for group in optimizer.param_groups:
            group["lr"] = budget.rate(state.step, state.seconds / total)
        loss, figures = _step(part, optimizer, together, state.step)
        if state.step % BLEND_EVERY == 0:
            _blend(average, model, _decay(state.step, budget.average) ** BLEND_EVERY)
        state = State(state.step + 1, together.agreed(state.seconds + clock.lap()))
        if main and state.step % LOG_EVERY == 0:
            _log(folder, state, {"loss": loss, **figures}, say)
        if main and clock.due("save", budget.save_minutes):
            save_state(model, average, optimizer, state, folder)
        if main and clock.due("show", budget.show_minutes):
            _show(part, average, folder, state, say)
            clock.resume()
    if main:
        save_state(model, average, optimizer, state, folder)
        _show(part, average, folder, state, say)
    accelerator.wait_for_everyone()
    model.load_state_dict(average)
    return model.eval()


def _step(
    part: Part, optimizer: torch.optim.Optimizer, together: Together, step: int
) -> tuple[float, dict[str, float]]:
    """Takes one optimiser step; a step with gradients that are not finite is left out."""
    with together.accelerator.autocast():
        loss, figures = part.loss(step)
    loss.backward()
    together.average_gradients(part.model)
    norm = nn.utils.clip_grad_norm_(part.model.parameters(), 1.0)
    if torch.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item(), figures


def _decay(step: int, limit: float) -> float:
    """Returns the decay of the running average: short at first, so that early steps do not linger."""
    return min(limit, (1 + step) / (10 + step))


def _blend(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Moves the running average towards the weights."""
    now = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    with torch.no_grad():
        torch._foreach_lerp_([average[name] for name in now], [value.float() for value in now.values()], 1 - decay)


def _show(part: Part, average: dict[str, Tensor], folder: Path, state: State, say: Say) -> None:
    """Lets the part show itself with the averaged weights in place."""
    trained = {name: value.clone() for name, value in part.model.state_dict().items()}
    part.model.load_state_dict(average)
    part.model.eval()
    (folder / "samples").mkdir(exist_ok=True)
    with torch.no_grad():
        figures = part.show(folder / "samples")
    _log(folder, state, {"shown": True, **figures}, say)
    part.model.load_state_dict(trained)
    part.model.train()


def _log(folder: Path, state: State, figures: dict[str, Any], say: Say) -> None:
    line = {"step": state.step, "minutes": state.seconds / 60, **figures}
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    say(
        "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in line.items())
    )
