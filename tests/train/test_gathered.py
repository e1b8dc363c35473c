"""Several processes train as one does with the whole batch: the same loss curve, the same weights."""

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
    ran = subprocess.run(
        [*command, str(SCRIPT), str(folder)], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    losses: list[float] = json.loads((folder / f"of-{processes}.json").read_text())
    return losses


def test_two_processes_train_as_one_with_the_double_batch(tmp_path: Path) -> None:
    one, two = train(1, tmp_path), train(2, tmp_path)
    assert two == pytest.approx(one, rel=1e-4)
    alone, together = (load_file(tmp_path / f"of-{count}.safetensors") for count in (1, 2))
    # The bias of keys has no gradient (softmax ignores it): there Adam follows rounding alone.
    names = [name for name in alone if not name.endswith("k_proj.bias")]
    assert max(float((alone[name] - together[name]).abs().max()) for name in names) < 1e-5


def test_alone_nothing_is_gathered() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    assert gathered(rows) is rows
