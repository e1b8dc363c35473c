from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from clipgen.errors import SettingsError
from clipgen.guidance.optimise import Ascent, ascend, check_few_steps, clipped, normalised
from clipgen.sampling.loop import Prediction, StepInput, denoise_with_graph, initial_noise, make_generators
from clipgen.sampling.make_scheduler import make_scheduler

WANTED = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))


def start(rows: int = 3) -> Tensor:
    return initial_noise(make_generators(range(rows)), (4, 4, 4))


def likeness(x0: Tensor) -> Tensor:
    return torch.cosine_similarity(x0.flatten(1), WANTED.flatten(1))


def draw(z: Tensor) -> Tensor:
    """Two steps of the real loop with a denoiser that bends what it is given."""

    def predict(step_input: StepInput) -> Prediction:
        output = step_input.latents - torch.tanh(step_input.latents.roll(1, dims=1))
        return Prediction(output, output, None, step_input.latents)

    config = {"beta_schedule": "scaled_linear", "prediction_type": "epsilon"}
    scheduler = make_scheduler("ddim", config, 2, torch.device("cpu"))
    *_, last = denoise_with_graph(predict, scheduler, z, make_generators(range(len(z))))
    return last.latents


def climb(noise: Tensor, iterations: int = 25, patience: int = 10) -> list[Ascent]:
    return list(ascend(noise, draw, likeness, iterations, patience))


def test_the_reward_rises_and_the_noise_stays_noise() -> None:
    path = climb(start())
    assert (path[-1].best > path[0].best + 0.1).all()
    assert torch.allclose(likeness(draw(path[-1].noise)), path[-1].best, atol=1e-6)
    assert path[-1].noise.mean(dim=(2, 3)).abs().max() < 1e-5
    assert (path[-1].noise.square().mean(dim=(2, 3)) - 1).abs().max() < 1e-5


def test_the_unguided_picture_is_the_first() -> None:
    (only,) = climb(start(), iterations=1)
    assert torch.equal(only.noise, start())
    assert torch.equal(only.best, only.rewards)
    assert [each.iteration for each in climb(start(), iterations=3)] == [0, 1, 2]


def test_the_best_noise_is_kept_when_the_ascent_falls() -> None:
    path = climb(start())
    assert all((later.best >= earlier.best).all() for earlier, later in pairwise(path))
    assert torch.equal(path[-1].best, torch.stack([each.rewards for each in path]).amax(dim=0))


def test_it_stops_after_ten_iterations_without_gain() -> None:
    assert len(list(ascend(start(), lambda z: z, lambda x0: 0 * x0.sum(dim=(1, 2, 3)), 200))) == 11


def test_a_row_does_not_depend_on_its_batch() -> None:
    alone, together = climb(start()[1:2], patience=2)[-1], climb(start(), patience=2)[-1]
    assert torch.allclose(alone.noise[0], together.noise[1], atol=1e-5)
    assert torch.allclose(alone.best[0], together.best[1], atol=1e-6)


def test_a_row_that_breaks_leaves_the_others_alone() -> None:
    def breaking(x0: Tensor) -> Tensor:
        return likeness(x0) * torch.tensor([1.0, float("nan"), 1.0])

    *_, last = ascend(start(), draw, breaking, 5)
    sane = climb(start(), iterations=5)[-1]
    assert torch.allclose(last.best[[0, 2]], sane.best[[0, 2]], atol=1e-6)
    assert last.noise.isfinite().all()
    assert torch.equal(last.noise[1], start()[1])


def test_it_runs_without_a_graph_around_it_and_leaves_none() -> None:
    before = torch.get_rng_state()
    with torch.no_grad():
        steps = ascend(start(), draw, likeness, 3)
        first = next(steps)
        assert not torch.is_grad_enabled()
        *_, last = steps
    assert not first.noise.requires_grad
    assert not last.best.requires_grad
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(last.noise, climb(start(), 3)[-1].noise)


def test_gradients_are_clipped_a_row_and_noise_is_projected_a_channel() -> None:
    gradients = torch.stack([torch.full((4, 4, 4), 1.0), torch.full((4, 4, 4), 1e-4)])
    assert clipped(gradients, 0.1).flatten(1).norm(dim=1).tolist() == pytest.approx([0.1, 8e-4], rel=1e-5)
    bent = normalised(3 * start() + 2)
    assert torch.allclose(bent, normalised(start()), atol=1e-5)


def test_many_steps_are_refused() -> None:
    check_few_steps(4, "turbo")
    with pytest.raises(SettingsError) as refusal:
        check_few_steps(30, "storybook")
    assert str(refusal.value) == "Guidance 'optimise' needs a model of 1-4 steps; 'storybook' runs 30. Use pick."
    assert refusal.value.field == "guidance"
