"""What adaptive projection leaves of classifier-free guidance, and what it remembers."""

from __future__ import annotations

import pytest
import torch

from clipgen.guidance.adaptive_projection import LONGEST, MOMENTUM, AdaptiveProjection, across, shortened
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
def test_what_is_added_to_x0_is_the_difference_across_it(prediction: str) -> None:
    here, (cond, uncond) = step_input(prediction=prediction), halves()
    output = AdaptiveProjection(5.0)(here, cond, uncond)
    x0, added = here.x0(cond), here.x0(output) - here.x0(cond)
    assert torch.allclose(added, 4 * across(x0 - here.x0(uncond), x0), atol=1e-4)
    assert (added * x0).sum(dim=(1, 2, 3)).abs().max() < 1e-3


def test_a_scale_of_one_is_the_prompt_alone() -> None:
    cond, uncond = halves()
    assert torch.equal(AdaptiveProjection(1.0)(step_input(), cond, uncond), cond)


def test_a_long_difference_is_cut_and_a_short_one_is_not() -> None:
    long, short = torch.full((1, 4, 8, 8), 3.0), torch.full((1, 4, 8, 8), 0.01)
    assert float(shortened(long, LONGEST).norm()) == pytest.approx(LONGEST, rel=1e-5)
    assert torch.equal(shortened(short, LONGEST), short)


def test_earlier_steps_count_with_the_momentum_and_only_within_a_run() -> None:
    mix, (cond, uncond), zero = AdaptiveProjection(2.0), halves(), torch.zeros(2, 4, 8, 8)
    mix(step_input(0), cond, uncond)
    before = step_input(0).x0(cond) - step_input(0).x0(uncond)
    here = step_input(1)
    added = here.x0(mix(here, zero, zero)) - here.x0(zero)
    assert torch.allclose(added, across(shortened(MOMENTUM * before, LONGEST), here.x0(zero)), atol=1e-4)
    assert torch.allclose(mix(step_input(0), cond, uncond), AdaptiveProjection(2.0)(step_input(0), cond, uncond))


def test_what_is_remembered_goes_with_its_row() -> None:
    both, alone = AdaptiveProjection(3.0), AdaptiveProjection(3.0)
    cond, uncond = halves()
    both(step_input(0, (0, 1)), cond, uncond)
    alone_input = step_input(0, (0,))
    alone(StepInput(alone_input.latents[1:], *list(vars(alone_input).values())[1:]), cond[1:], uncond[1:])
    here = step_input(1, (1,), batch=1)
    moved = both(here, cond[:1], uncond[:1])
    same = alone(step_input(1, (0,), batch=1), cond[:1], uncond[:1])
    assert torch.allclose(moved, same, atol=1e-5)
