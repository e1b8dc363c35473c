from __future__ import annotations

import pytest
import torch

from clipgen.guidance.pick import (
    HALVING_PROGRESS,
    Pick,
    best_row,
    better_half,
    candidate_seeds,
    candidates_per_step,
    halving_steps,
)
from clipgen.sampling.loop import StepState


def make_state(rows: int, step: int, steps: int = 20) -> StepState:
    x0 = torch.arange(rows, dtype=torch.float32)[:, None, None, None].expand(rows, 1, 2, 2)
    return StepState(x0, x0, x0, None, 0.5, 0.5, step / steps, step, steps, tuple(range(rows)))


def reward(x0: torch.Tensor) -> torch.Tensor:
    """Rewards even rows more than odd ones."""
    values = x0[:, 0, 0, 0]
    return values - 100 * (values % 2)


def test_first_candidate_has_the_image_seed() -> None:
    seeds = candidate_seeds(7, 8)
    assert seeds[0] == 7
    assert len(set(seeds)) == 8
    assert seeds[:4] == candidate_seeds(7, 4)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert not set(seeds[1:]) & set(candidate_seeds(8, 8))


def test_better_half_keeps_its_order() -> None:
    assert Pick(reward, 8)(make_state(8, step=4)).tolist() == [0, 2, 4, 6]
    assert Pick(reward, 8)(make_state(8, step=3)) is None
    assert better_half(torch.tensor([1.0, float("nan"), 3.0, float("-inf")])).tolist() == [0, 2]
    assert better_half(torch.tensor([0.1, float("inf")])).tolist() == [0]


def test_best_row_is_finite() -> None:
    assert best_row(torch.tensor([float("nan"), 0.1, 0.3, float("inf"), 0.3])) == 2
    assert best_row(torch.tensor([float("nan")])) == 0


@pytest.mark.parametrize("candidates", HALVING_PROGRESS)
@pytest.mark.parametrize("steps", [8, 9, 10, 20, 40, 150])
def test_one_candidate_is_left_at_the_end(candidates: int, steps: int) -> None:
    pick, counts = Pick(reward, candidates), [candidates]
    for step in range(steps):
        selected = pick(make_state(counts[-1], step, steps))
        counts.append(counts[-1] if selected is None else len(selected))
    assert counts[:-1] == candidates_per_step(candidates, steps)
    assert counts[-1] == 1


def test_halving_waits_for_its_progress() -> None:
    for steps in (8, 11, 40):
        points = HALVING_PROGRESS[16]
        assert all(step / steps >= point for step, point in zip(halving_steps(points, steps), points, strict=True))


def test_short_runs_are_not_halved() -> None:
    assert all(Pick(reward, 4)(make_state(4, step, steps=4)) is None for step in range(4))
    assert candidates_per_step(4, 4) == [4] * 4


def test_halving_runs_far_fewer_steps_than_best_of_n() -> None:
    images = [sum(candidates_per_step(n, 40)) / 40 for n in (2, 4, 8, 16)]
    assert [round(count, 1) for count in images] == [1.4, 1.9, 3.4, 4.0]
