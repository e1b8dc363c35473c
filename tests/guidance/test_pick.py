from __future__ import annotations

import pytest
import torch

from clipgen.guidance.pick import (
    HALVED_AT,
    Pick,
    better_half,
    candidate_seeds,
    halving_steps,
    price,
    rows_alive,
    winner,
)
from clipgen.sampling.loop import StepState


def moment(rows: int, step: int, steps: int = 20) -> StepState:
    x0 = torch.arange(rows, dtype=torch.float32)[:, None, None, None].expand(rows, 1, 2, 2)
    return StepState(x0, x0, x0, None, 0.5, 0.5, step / steps, step, steps, tuple(range(rows)))


def reward(x0: torch.Tensor) -> torch.Tensor:
    """Likes even rows best."""
    values = x0[:, 0, 0, 0]
    return values - 100 * (values % 2)


def test_the_pictures_own_seed_is_the_first_candidate() -> None:
    seeds = candidate_seeds(7, 8)
    assert seeds[0] == 7
    assert len(set(seeds)) == 8
    assert seeds[:4] == candidate_seeds(7, 4)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert not set(seeds[1:]) & set(candidate_seeds(8, 8))


def test_the_better_half_lives_on_in_its_order() -> None:
    assert Pick(reward, 8)(moment(8, step=4)).tolist() == [0, 2, 4, 6]
    assert Pick(reward, 8)(moment(8, step=3)) is None
    assert better_half(torch.tensor([1.0, float("nan"), 3.0, float("-inf")])).tolist() == [0, 2]
    assert better_half(torch.tensor([0.1, float("inf")])).tolist() == [0]


def test_the_winner_is_the_best_that_is_finite() -> None:
    assert winner(torch.tensor([float("nan"), 0.1, 0.3, float("inf"), 0.3])) == 2
    assert winner(torch.tensor([float("nan")])) == 0


@pytest.mark.parametrize("candidates", HALVED_AT)
@pytest.mark.parametrize("steps", [8, 9, 10, 20, 40, 150])
def test_one_candidate_is_left_in_the_end(candidates: int, steps: int) -> None:
    pick, alive = Pick(reward, candidates), [candidates]
    for step in range(steps):
        kept = pick(moment(alive[-1], step, steps))
        alive.append(alive[-1] if kept is None else len(kept))
    assert alive[:-1] == rows_alive(candidates, steps)
    assert alive[-1] == 1


def test_nobody_is_dropped_before_their_part_of_the_run_is_done() -> None:
    for steps in (8, 11, 40):
        points = HALVED_AT[16]
        assert all(step / steps >= point for step, point in zip(halving_steps(points, steps), points, strict=True))


def test_few_steps_drop_nobody_early() -> None:
    assert all(Pick(reward, 4)(moment(4, step, steps=4)) is None for step in range(4))
    assert price(4, 4) == 4


def test_the_price_is_far_below_best_of_n() -> None:
    assert [round(price(n, 40), 1) for n in (2, 4, 8, 16)] == [1.4, 1.9, 3.4, 4.0]
