from __future__ import annotations

import pytest
import torch

from clipgen.errors import SettingsError
from clipgen.guidance.steer import (
    Steer,
    check_stochastic,
    effective_sample_size,
    is_stochastic,
    resampling_steps,
    systematic_resampling,
    z_scores,
)
from clipgen.sampling.loop import StepState


def make_state(rewards: list[float], step: int, steps: int = 10) -> StepState:
    """Returns a step whose x0 contains the rewards."""
    x0 = torch.tensor(rewards)[:, None, None, None].expand(len(rewards), 1, 2, 2)
    return StepState(x0, x0, x0, None, 0.5, 0.5, step / steps, step, steps, tuple(range(len(rewards))))


def reward(x0: torch.Tensor) -> torch.Tensor:
    return x0[:, 0, 0, 0]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_resampling_steps_exclude_the_last() -> None:
    assert resampling_steps(40) == (8, 16, 24, 32)
    assert resampling_steps(10) == (2, 4, 6, 8)
    assert resampling_steps(5) == (1, 2, 3)
    assert resampling_steps(2) == resampling_steps(1) == ()
    steer = Steer(reward, 0, strength=50.0)
    assert [steer(make_state([0.0, 0.0, 0.0, 9.0], step)) is None for step in (0, 1)] == [True, True]


def test_promising_particles_are_duplicated() -> None:
    rows = Steer(reward, 0, strength=50.0)(make_state([0.1, 0.2, 0.9, 0.3], step=2))
    assert rows is not None
    assert rows.tolist() == [2, 2, 2, 2]


def test_equal_rewards_do_not_resample() -> None:
    steer = Steer(reward, 0)
    assert all(steer(make_state([0.2, 0.2, 0.2, 0.2], step)) is None for step in range(10))
    assert Steer(reward, 0, strength=0.1)(make_state([0.1, 0.2, 0.9, 0.3], step=2)) is None


def test_weights_accumulate_and_only_growth_counts() -> None:
    """A constant lead counts once; if it counted again, the second resampling step would resample."""
    lead = [0.0, 0.0, 0.0, 1.0]
    gain = z_scores(torch.tensor(lead).double(), torch.tensor(lead).double())
    strength = next(
        s / 100 for s in range(1, 1000) if effective_sample_size((s / 100 * gain).softmax(0)) < 2.2
    )  # just not uneven enough to resample
    steer = Steer(reward, 0, strength)
    assert steer(make_state(lead, 2)) is None
    assert steer(make_state(lead, 4)) is None
    assert steer(make_state([0.0, 0.0, 0.0, 3.0], 6)) is not None


def test_particle_that_is_not_finite_gets_no_weight() -> None:
    steer = Steer(reward, 3)
    rows = steer(make_state([0.1, float("nan"), 0.9, float("inf")], step=2))
    assert rows is None or not {1, 3} & set(rows.tolist())
    rows = steer(make_state([0.1, float("nan"), 5.0, 0.1], step=4))
    assert rows is not None
    assert 1 not in rows.tolist()
    assert Steer(reward, 0)(make_state([float("nan")] * 4, step=2)) is None


def test_systematic_resampling_follows_weights_and_seed() -> None:
    weights = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    counts = torch.zeros(4)
    for seed in range(2000):
        rows = systematic_resampling(weights, seeded(seed))
        assert rows.tolist() == sorted(rows.tolist())
        assert (rows == 0).sum() == 2
        counts += torch.bincount(rows, minlength=4)
    assert torch.allclose(counts / 8000, weights.float(), atol=0.01)
    assert counts[1] == 0
    assert torch.equal(systematic_resampling(weights, seeded()), systematic_resampling(weights, seeded()))


def test_last_row_with_weight_zero_is_never_selected() -> None:
    weights = torch.tensor([0.1] * 10 + [0.0], dtype=torch.float64)
    assert all(10 not in systematic_resampling(weights, seeded(seed)).tolist() for seed in range(200))


def test_z_scores_use_all_rewards_of_the_run() -> None:
    rewards = torch.tensor([1.0, 2.0, 3.0])
    assert z_scores(rewards, rewards).tolist() == pytest.approx([-1.2247, 0, 1.2247], abs=1e-4)
    assert z_scores(torch.tensor([2.0, float("nan")]), torch.tensor([2.0])).tolist() == [0, float("-inf")]


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
def test_is_stochastic_by_scheduler_and_eta(scheduler: str, prediction: str, eta: float, draws: bool) -> None:
    assert is_stochastic(scheduler, prediction, eta) is draws


def test_deterministic_scheduler_raises_for_steer() -> None:
    check_stochastic("euler_ancestral", "epsilon", 0.0)
    with pytest.raises(SettingsError) as refusal:
        check_stochastic("dpm++_2m", "v_prediction", 1.0)
    assert str(refusal.value) == (
        "Guidance 'steer' needs a scheduler that draws noise, and 'dpm++_2m' draws none. Works: ddpm, euler_ancestral, "
        "dpm2_ancestral, dpm++_2m_sde, dpm++_3m_sde, sa_solver, lcm, and ddim with eta above 0."
    )
    assert refusal.value.field == "scheduler"
    with pytest.raises(SettingsError, match="flow_lcm, and flow_euler with eta above 0"):
        check_stochastic("flow_heun", "flow", 0.0)
