from __future__ import annotations

import pytest
import torch

from clipgen.errors import SettingsError
from clipgen.guidance.steer import (
    Steer,
    check_draws_noise,
    draws_noise,
    effective_size,
    standardised,
    systematic,
    weighing_steps,
)
from clipgen.sampling.loop import StepState


def moment(rewards: list[float], step: int, steps: int = 10) -> StepState:
    """A moment whose x0 says its own reward."""
    x0 = torch.tensor(rewards)[:, None, None, None].expand(len(rewards), 1, 2, 2)
    return StepState(x0, x0, x0, None, 0.5, 0.5, step / steps, step, steps, tuple(range(len(rewards))))


def reward(x0: torch.Tensor) -> torch.Tensor:
    return x0[:, 0, 0, 0]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_particles_are_weighed_four_times_and_never_in_the_end() -> None:
    assert weighing_steps(40) == (8, 16, 24, 32)
    assert weighing_steps(10) == (2, 4, 6, 8)
    assert weighing_steps(5) == (1, 2, 3)
    assert weighing_steps(2) == weighing_steps(1) == ()
    steer = Steer(reward, 0, strength=50.0)
    assert [steer(moment([0.0, 0.0, 0.0, 9.0], step)) is None for step in (0, 1)] == [True, True]


def test_the_promising_multiply_and_the_rest_end() -> None:
    rows = Steer(reward, 0, strength=50.0)(moment([0.1, 0.2, 0.9, 0.3], step=2))
    assert rows is not None
    assert rows.tolist() == [2, 2, 2, 2]


def test_alike_particles_all_go_on() -> None:
    steer = Steer(reward, 0)
    assert all(steer(moment([0.2, 0.2, 0.2, 0.2], step)) is None for step in range(10))
    assert Steer(reward, 0, strength=0.1)(moment([0.1, 0.2, 0.9, 0.3], step=2)) is None


def test_weights_gather_over_weighings_and_only_growth_counts() -> None:
    """A lead that stays is counted once: without the rewards before, the second weighing would resample."""
    lead = [0.0, 0.0, 0.0, 1.0]
    gain = standardised(torch.tensor(lead).double(), torch.tensor(lead).double())
    strength = next(
        s / 100 for s in range(1, 1000) if effective_size((s / 100 * gain).softmax(0)) < 2.2
    )  # barely too little
    steer = Steer(reward, 0, strength)
    assert steer(moment(lead, 2)) is None
    assert steer(moment(lead, 4)) is None
    assert steer(moment([0.0, 0.0, 0.0, 3.0], 6)) is not None


def test_a_broken_particle_ends_and_breaks_no_other() -> None:
    steer = Steer(reward, 3)
    rows = steer(moment([0.1, float("nan"), 0.9, float("inf")], step=2))
    assert rows is None or not {1, 3} & set(rows.tolist())
    rows = steer(moment([0.1, float("nan"), 5.0, 0.1], step=4))
    assert rows is not None
    assert 1 not in rows.tolist()
    assert Steer(reward, 0)(moment([float("nan")] * 4, step=2)) is None


def test_resampling_follows_the_weights_and_the_seed() -> None:
    weights = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    counts = torch.zeros(4)
    for seed in range(2000):
        rows = systematic(weights, seeded(seed))
        assert rows.tolist() == sorted(rows.tolist())
        assert (rows == 0).sum() == 2
        counts += torch.bincount(rows, minlength=4)
    assert torch.allclose(counts / 8000, weights.float(), atol=0.01)
    assert counts[1] == 0
    assert torch.equal(systematic(weights, seeded()), systematic(weights, seeded()))


def test_the_last_row_is_drawn_only_by_its_own_weight() -> None:
    weights = torch.tensor([0.1] * 10 + [0.0], dtype=torch.float64)
    assert all(10 not in systematic(weights, seeded(seed)).tolist() for seed in range(200))


def test_rewards_are_counted_in_deviations_of_all_that_were_seen() -> None:
    seen = torch.tensor([1.0, 2.0, 3.0])
    assert standardised(seen, seen).tolist() == pytest.approx([-1.2247, 0, 1.2247], abs=1e-4)
    assert standardised(torch.tensor([2.0, float("nan")]), torch.tensor([2.0])).tolist() == [0, float("-inf")]


@pytest.mark.parametrize(
    ("scheduler", "prediction", "eta", "draws"),
    [
        ("ddim", "epsilon", 0.0, False),
        ("ddim", "epsilon", 0.5, True),
        ("euler", "epsilon", 1.0, False),
        ("euler_ancestral", "v_prediction", 0.0, True),
        ("dpm++_2m_sde_karras", "epsilon", 0.0, True),
        ("euler", "flow", 0.0, False),
        ("euler", "flow", 0.5, True),
        ("lcm", "flow", 0.0, True),
    ],
)
def test_which_schedulers_draw_noise(scheduler: str, prediction: str, eta: float, draws: bool) -> None:
    assert draws_noise(scheduler, prediction, eta) is draws


def test_a_scheduler_without_noise_is_refused_by_name() -> None:
    check_draws_noise("euler_ancestral", "epsilon", 0.0)
    with pytest.raises(SettingsError) as refusal:
        check_draws_noise("dpm++_2m", "v_prediction", 1.0)
    assert str(refusal.value) == (
        "Guidance 'steer' needs a scheduler that draws noise, and 'dpm++_2m' draws none. Works: ddpm, euler_ancestral, "
        "dpm2_ancestral, dpm++_2m_sde, dpm++_3m_sde, sa_solver, lcm, and ddim with eta above 0."
    )
    assert refusal.value.field == "scheduler"
    with pytest.raises(SettingsError, match="flow_lcm, and flow_euler with eta above 0"):
        check_draws_noise("flow_heun", "flow", 0.0)
