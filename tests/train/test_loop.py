"""The training loop: budgets, resuming, atomic states."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from clipgen.train.checkpoint import State, resume, save_atomically
from clipgen.train.curves import draw_curves
from clipgen.train.loop import Budget, fit

BUDGET = Budget(0.02, batch=4, learning_rate=0.05, warmup=5, average=0.9, save_minutes=0.005, evaluate_minutes=1)


class Line:
    """Fits y = 3 x - 1."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Linear(1, 1)

    def to(self, device: torch.device) -> None:
        self.model.to(device)

    def loss(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        x = torch.linspace(-1, 1, 16)[:, None]
        error = (self.model(x) - (3 * x - 1)).square().mean()
        return error, {"error": error.item()}

    def evaluate(self, folder: Path) -> dict[str, float]:
        (folder / "sample.txt").write_text("3 x - 1")
        return {"bias": self.model.bias.item()}  # type: ignore[operator, union-attr]


def ignore_line(line: str) -> None:
    """Ignores a log line."""


def test_a_run_learns_evaluates_and_plots_its_curves(tmp_path: Path) -> None:
    model = fit(Line(), BUDGET, tmp_path, Accelerator(cpu=True), ignore_line)
    assert model.weight.item() == pytest.approx(3, abs=0.2)  # type: ignore[operator, union-attr]
    assert (tmp_path / "samples" / "sample.txt").exists()
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 500


def test_a_run_resumes_from_its_state(tmp_path: Path) -> None:
    fit(Line(), BUDGET, tmp_path, Accelerator(cpu=True), ignore_line)
    part = Line()
    average = {name: value.clone() for name, value in part.model.state_dict().items()}
    optimizer = torch.optim.AdamW(part.model.parameters())
    state = resume(part.model, average, optimizer, tmp_path)
    assert state.step > 0
    assert state.seconds >= 0.02 * 60
    assert all("exp_avg" in moments for moments in optimizer.state.values())
    fit(Line(), replace(BUDGET, minutes=state.seconds / 60 + 0.01), tmp_path, Accelerator(cpu=True), ignore_line)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] > state.step


def test_an_exhausted_budget_leaves_the_weights_unchanged(tmp_path: Path) -> None:
    first = fit(Line(), BUDGET, tmp_path, Accelerator(cpu=True), ignore_line).state_dict()
    again = fit(Line(), BUDGET, tmp_path, Accelerator(cpu=True), ignore_line).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_an_empty_folder_gives_a_new_state(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    assert resume(model, {}, torch.optim.AdamW(model.parameters()), tmp_path) == State()


def test_saving_replaces_the_state_and_leaves_no_other_file(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        save_atomically({"x": torch.full((3,), value)}, tmp_path / "state.safetensors", {"step": "1"})
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    assert (tmp_path / "state.safetensors").stat().st_mode & 0o044


def test_the_learning_rate_warms_up_and_decays_to_zero() -> None:
    budget = Budget(1, batch=1, learning_rate=1.0, warmup=10, decay=0.5)
    assert budget.rate(0, 0) == pytest.approx(0.1)
    assert budget.rate(100, 0.4) == 1.0
    assert budget.rate(100, 0.75) == pytest.approx(0.5)
    assert budget.rate(100, 1.5) == 0.0
