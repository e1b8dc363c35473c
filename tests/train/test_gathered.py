"""Training in several processes equals training in one process with the whole batch, in losses and weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clipgen.train.gathered import gathered

SCRIPT = Path(__file__).with_name("two_processes.py")


def train(processes: int, folder: Path) -> list[float]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    completed = subprocess.run(
        [*command, str(SCRIPT), str(folder)], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert completed.returncode == 0, completed.stderr[-2000:]
    losses: list[float] = json.loads((folder / f"of-{processes}.json").read_text())
    return losses


def test_two_processes_equal_one_process_with_twice_the_batch(tmp_path: Path) -> None:
    one, two = train(1, tmp_path), train(2, tmp_path)
    assert two == pytest.approx(one, rel=1e-4)
    one_process, two_processes = (load_file(tmp_path / f"of-{count}.safetensors") for count in (1, 2))
    # The bias of keys has no gradient (softmax ignores it): Adam follows only rounding errors there.
    names = [name for name in one_process if not name.endswith("k_proj.bias")]
    assert max(float((one_process[name] - two_processes[name]).abs().max()) for name in names) < 1e-5


def test_gathered_returns_its_input_in_a_single_process() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    assert gathered(rows) is rows
