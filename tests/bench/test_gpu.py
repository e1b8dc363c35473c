"""The script for CUDA cards, with tiny models on the CPU."""

from __future__ import annotations

import pytest
import torch

from clipgen.bench import gpu
from clipgen.bench.random_models import MODELS

CPU = torch.device("cpu")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_variant_draws_and_equals_diffusers(model) -> None:
    rows = {row.variant: row for row in gpu.measure(model, CPU, steps=2, rounds=1, tiny=True)}
    assert list(rows) == [gpu.DIFFUSERS, gpu.CLIPGEN, gpu.AGAIN, gpu.GUIDED]
    assert rows[gpu.CLIPGEN].difference == rows[gpu.AGAIN].difference
    assert rows[gpu.CLIPGEN].difference <= 1e-4
    assert rows[gpu.GUIDED].difference is None
    assert rows[gpu.DIFFUSERS].relative.median == 1.0
    assert len(rows[gpu.GUIDED].cells) == len(gpu.COLUMNS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_card_says_so_in_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^This machine has no CUDA card\. Works: --tiny, .*\.$"):
        gpu.main([])


def test_models_are_skipped_when_the_time_is_over(monkeypatch, capsys) -> None:
    monkeypatch.setattr(gpu, "CUDA_TESTS", gpu.CUDA_TESTS.with_name("missing"))
    gpu.main(["--tiny", "--minutes", "-1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in lines[2:5]] == ["skipped, because -1 minutes are over"] * 3
    assert lines[5].startswith("The tests that need a CUDA card are in the repository")
