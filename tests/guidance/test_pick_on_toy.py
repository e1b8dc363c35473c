"""pick and steer on the toy: halving beats best of N at equal price, and steer needs noise in the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
import toy

from clipgen.guidance.pick import Pick, best_row
from clipgen.guidance.steer import Steer
from clipgen.sampling.loop import Selection, StepOutput, StepState, denoise, initial_noise, make_generators
from clipgen.sampling.make_scheduler import make_scheduler

IMAGES, STEPS = 200, 40


class SelectionPerImage:
    """One selection per image; the rows of an image are adjacent."""

    def __init__(self, make: Callable[[int], Selection], images: int, rows: int) -> None:
        self.selections, self.sizes = [make(seed) for seed in range(images)], [rows] * images

    def __call__(self, state: StepState) -> torch.Tensor | None:
        indices, start = [], 0
        for image, size in enumerate(self.sizes):
            rows = slice(start, start + size)
            selected = self.selections[image](replace(state, latents=state.latents[rows], x0=state.x0[rows]))
            indices.append((torch.arange(size) if selected is None else selected) + start)
            self.sizes[image], start = len(indices[-1]), start + size
        return torch.cat(indices)


def best_rows(output: StepOutput, sizes: Sequence[int]) -> torch.Tensor:
    """Returns the latents of the best row of each image."""
    parts = output.latents.split(list(sizes))
    return torch.stack([part[best_row(toy.reward(part))] for part in parts])


def run(make: Callable[[int], Selection], rows: int, eta: float = 0.0) -> torch.Tensor:
    select = SelectionPerImage(make, IMAGES, rows)
    output = toy.draw(toy.network(), "ddim", STEPS, IMAGES * rows, eta=eta, select=select)
    return best_rows(output, select.sizes)


def keep_all(state: StepState) -> None:
    return None


def test_halving_from_sixteen_beats_best_of_four_at_equal_price() -> None:
    best_of_four, halved = run(lambda seed: keep_all, 4), run(lambda seed: Pick(toy.reward, 16), 16)
    assert toy.hits(halved) >= toy.hits(best_of_four) + 0.2


def test_steer_needs_a_stochastic_scheduler() -> None:
    deterministic, stochastic = (run(lambda seed: Steer(toy.reward, seed), 8, eta) for eta in (0.0, 1.0))
    assert toy.hits(stochastic) >= toy.hits(deterministic) + 0.2


@pytest.mark.parametrize("scheduler", ["ddim", "euler_ancestral", "dpm++_2m_sde", "flow_euler"])
def test_steer_is_deterministic_and_leaves_the_global_generator(scheduler: str) -> None:
    def steer(image_seed: int) -> torch.Tensor:
        return toy.draw(
            toy.network(), scheduler, 20, 4, eta=1.0, select=Steer(toy.reward, image_seed, strength=9.0)
        ).latents

    before = torch.get_rng_state()
    once, again = steer(1), steer(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(once, again)
    assert len(torch.unique(once.flatten(1), dim=0)) == 4


def test_rows_are_indices_of_the_initial_batch() -> None:
    generators = make_generators(range(4))
    scheduler = make_scheduler("euler_ancestral", toy.scheduler_config("euler_ancestral"), 20, torch.device("cpu"))
    noise = initial_noise(generators, toy.SHAPE)
    select = Steer(toy.reward, 0, strength=9.0)
    outputs = list(denoise(toy.network(), scheduler, noise, generators, select=select))
    assert outputs[0].rows == (0, 1, 2, 3)
    assert len(set(outputs[-1].rows)) < 4
