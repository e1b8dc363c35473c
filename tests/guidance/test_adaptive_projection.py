"""Adaptive projected guidance: what it adds to the conditional x0, and its momentum."""

from __future__ import annotations

import pytest
import torch

from clipgen.guidance.adaptive_projection import MAX_NORM, MOMENTUM, AdaptiveProjection, limit_norm, orthogonal_part
from clipgen.sampling.loop import StepInput
from clipgen.sampling.prediction import NoiseLevel


def step_input(
    index: int = 0, rows: tuple[int, ...] | None = None, prediction: str = "epsilon", batch: int = 2
) -> StepInput:
    latents = torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(index))
    return StepInput(latents, lambda x: x, torch.tensor(500), NoiseLevel(0.6, 0.8), prediction, index, 10, rows)


def halves(seed: int = 0, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cond = torch.randn(batch, 4, 8, 8, generator=generator)
    return cond, cond + 0.1 * torch.randn(batch, 4, 8, 8, generator=generator)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_correction_is_the_orthogonal_part_of_the_difference(prediction: str) -> None:
    inputs, (cond, uncond) = step_input(prediction=prediction), halves()
    output = AdaptiveProjection(5.0)(inputs, cond, uncond)
    x0, added = inputs.x0(cond), inputs.x0(output) - inputs.x0(cond)
    assert torch.allclose(added, 4 * orthogonal_part(x0 - inputs.x0(uncond), x0), atol=1e-4)
    assert (added * x0).sum(dim=(1, 2, 3)).abs().max() < 1e-3


def test_scale_one_returns_the_conditional_output() -> None:
    cond, uncond = halves()
    assert torch.equal(AdaptiveProjection(1.0)(step_input(), cond, uncond), cond)


def test_limit_norm_shortens_long_differences_only() -> None:
    long, short = torch.full((1, 4, 8, 8), 3.0), torch.full((1, 4, 8, 8), 0.01)
    assert float(limit_norm(long, MAX_NORM).norm()) == pytest.approx(MAX_NORM, rel=1e-5)
    assert torch.equal(limit_norm(short, MAX_NORM), short)


def test_momentum_adds_the_previous_difference_within_one_run() -> None:
    mix, (cond, uncond), zero = AdaptiveProjection(2.0), halves(), torch.zeros(2, 4, 8, 8)
    mix(step_input(0), cond, uncond)
    before = step_input(0).x0(cond) - step_input(0).x0(uncond)
    inputs = step_input(1)
    added = inputs.x0(mix(inputs, zero, zero)) - inputs.x0(zero)
    assert torch.allclose(added, orthogonal_part(limit_norm(MOMENTUM * before, MAX_NORM), inputs.x0(zero)), atol=1e-4)
    assert torch.allclose(mix(step_input(0), cond, uncond), AdaptiveProjection(2.0)(step_input(0), cond, uncond))


def test_momentum_follows_the_rows_of_a_selection() -> None:
    both, alone = AdaptiveProjection(3.0), AdaptiveProjection(3.0)
    cond, uncond = halves()
    both(step_input(0, (0, 1)), cond, uncond)
    alone_input = step_input(0, (0,))
    alone(StepInput(alone_input.latents[1:], *list(vars(alone_input).values())[1:]), cond[1:], uncond[1:])
    inputs = step_input(1, (1,), batch=1)
    moved = both(inputs, cond[:1], uncond[:1])
    same = alone(step_input(1, (0,), batch=1), cond[:1], uncond[:1])
    assert torch.allclose(moved, same, atol=1e-5)
