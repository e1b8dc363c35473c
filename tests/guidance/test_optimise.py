from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from clipgen.errors import SettingsError
from clipgen.guidance.optimise import Ascent, ascend, check_few_steps, clip_gradient_norm, normalise_channels
from clipgen.sampling.loop import Prediction, StepInput, denoise_with_graph, initial_noise, make_generators
from clipgen.sampling.make_scheduler import make_scheduler

TARGET = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))


def start(rows: int = 3) -> Tensor:
    return initial_noise(make_generators(range(rows)), (4, 4, 4))


def similarity(x0: Tensor) -> Tensor:
    return torch.cosine_similarity(x0.flatten(1), TARGET.flatten(1))


def generate(z: Tensor) -> Tensor:
    """Runs two steps of the real loop with a nonlinear denoiser."""

    def predict(step_input: StepInput) -> Prediction:
        output = step_input.latents - torch.tanh(step_input.latents.roll(1, dims=1))
        return Prediction(output, output, None, step_input.latents)

    config = {"beta_schedule": "scaled_linear", "prediction_type": "epsilon"}
    scheduler = make_scheduler("ddim", config, 2, torch.device("cpu"))
    *_, last = denoise_with_graph(predict, scheduler, z, make_generators(range(len(z))))
    return last.latents


def run_ascent(noise: Tensor, iterations: int = 25, patience: int = 10) -> list[Ascent]:
    return list(ascend(noise, generate, similarity, iterations, patience))


def test_reward_increases_and_noise_keeps_unit_variance() -> None:
    path = run_ascent(start())
    assert (path[-1].best_rewards > path[0].best_rewards + 0.1).all()
    assert torch.allclose(similarity(generate(path[-1].best_noise)), path[-1].best_rewards, atol=1e-6)
    assert path[-1].best_noise.mean(dim=(2, 3)).abs().max() < 1e-5
    assert (path[-1].best_noise.square().mean(dim=(2, 3)) - 1).abs().max() < 1e-5


def test_first_iteration_uses_the_initial_noise() -> None:
    (only,) = run_ascent(start(), iterations=1)
    assert torch.equal(only.best_noise, start())
    assert torch.equal(only.best_rewards, only.rewards)
    assert [each.iteration for each in run_ascent(start(), iterations=3)] == [0, 1, 2]


def test_best_rewards_never_decrease() -> None:
    path = run_ascent(start())
    assert all((later.best_rewards >= earlier.best_rewards).all() for earlier, later in pairwise(path))
    assert torch.equal(path[-1].best_rewards, torch.stack([each.rewards for each in path]).amax(dim=0))


def test_ascent_stops_after_ten_iterations_without_gain() -> None:
    assert len(list(ascend(start(), lambda z: z, lambda x0: 0 * x0.sum(dim=(1, 2, 3)), 200))) == 11


def test_rows_do_not_depend_on_the_batch() -> None:
    alone, together = run_ascent(start()[1:2], patience=2)[-1], run_ascent(start(), patience=2)[-1]
    assert torch.allclose(alone.best_noise[0], together.best_noise[1], atol=1e-5)
    assert torch.allclose(alone.best_rewards[0], together.best_rewards[1], atol=1e-6)


def test_row_that_is_not_finite_does_not_affect_others() -> None:
    def similarity_with_nan(x0: Tensor) -> Tensor:
        return similarity(x0) * torch.tensor([1.0, float("nan"), 1.0])

    *_, last = ascend(start(), generate, similarity_with_nan, 5)
    finite = run_ascent(start(), iterations=5)[-1]
    assert torch.allclose(last.best_rewards[[0, 2]], finite.best_rewards[[0, 2]], atol=1e-6)
    assert last.best_noise.isfinite().all()
    assert torch.equal(last.best_noise[1], start()[1])


def test_ascent_works_under_no_grad_and_returns_no_graph() -> None:
    before = torch.get_rng_state()
    with torch.no_grad():
        steps = ascend(start(), generate, similarity, 3)
        first = next(steps)
        assert not torch.is_grad_enabled()
        *_, last = steps
    assert not first.best_noise.requires_grad
    assert not last.best_rewards.requires_grad
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(last.best_noise, run_ascent(start(), 3)[-1].best_noise)


def test_gradients_are_clipped_per_row_and_noise_is_normalised_per_channel() -> None:
    gradients = torch.stack([torch.full((4, 4, 4), 1.0), torch.full((4, 4, 4), 1e-4)])
    assert clip_gradient_norm(gradients, 0.1).flatten(1).norm(dim=1).tolist() == pytest.approx([0.1, 8e-4], rel=1e-5)
    normalised = normalise_channels(3 * start() + 2)
    assert torch.allclose(normalised, normalise_channels(start()), atol=1e-5)


def test_more_than_four_steps_raise() -> None:
    check_few_steps(4, "turbo")
    with pytest.raises(SettingsError) as refusal:
        check_few_steps(30, "storybook")
    assert str(refusal.value) == "Guidance 'optimise' needs a model of 1-4 steps; 'storybook' runs 30. Use pick."
    assert refusal.value.field == "guidance"
