"""What choosing among candidates buys on the toy: a quarter of the price by halving, and copies that may part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
import toy

from clipgen.guidance.pick import Pick, winner
from clipgen.guidance.steer import Steer
from clipgen.sampling.loop import Selection, StepOutput, StepState, denoise, initial_noise, make_generators
from clipgen.sampling.make_scheduler import make_scheduler

PICTURES, STEPS = 200, 40


class Groups:
    """A selection for each of several pictures, whose rows follow each other."""

    def __init__(self, made: Callable[[int], Selection], pictures: int, rows: int) -> None:
        self.selections, self.sizes = [made(seed) for seed in range(pictures)], [rows] * pictures

    def __call__(self, moment: StepState) -> torch.Tensor | None:
        kept, start = [], 0
        for number, size in enumerate(self.sizes):
            own = slice(start, start + size)
            chosen = self.selections[number](replace(moment, latents=moment.latents[own], x0=moment.x0[own]))
            kept.append((torch.arange(size) if chosen is None else chosen) + start)
            self.sizes[number], start = len(kept[-1]), start + size
        return torch.cat(kept)


def chosen(state: StepOutput, sizes: Sequence[int]) -> torch.Tensor:
    """The latents of each picture's best row."""
    parts = state.latents.split(list(sizes))
    return torch.stack([part[winner(toy.reward(part))] for part in parts])


def best(made: Callable[[int], Selection], rows: int, eta: float = 0.0) -> torch.Tensor:
    groups = Groups(made, PICTURES, rows)
    state = toy.draw(toy.network(), "ddim", STEPS, PICTURES * rows, eta=eta, select=groups)
    return chosen(state, groups.sizes)


def nobody_leaves(moment: StepState) -> None:
    return None


def test_halving_from_sixteen_beats_best_of_four_at_its_price() -> None:
    of_four, halved = best(lambda seed: nobody_leaves, 4), best(lambda seed: Pick(toy.reward, 16), 16)
    assert toy.hits(halved) >= toy.hits(of_four) + 0.2


def test_particles_need_noise_to_part() -> None:
    still, moving = (best(lambda seed: Steer(toy.reward, seed), 8, eta) for eta in (0.0, 1.0))
    assert toy.hits(moving) >= toy.hits(still) + 0.2


@pytest.mark.parametrize("scheduler", ["ddim", "euler_ancestral", "dpm++_2m_sde", "flow_euler"])
def test_particles_repeat_themselves_and_leave_global_random_numbers_alone(scheduler: str) -> None:
    def run(image_seed: int) -> torch.Tensor:
        return toy.draw(
            toy.network(), scheduler, 20, 4, eta=1.0, select=Steer(toy.reward, image_seed, strength=9.0)
        ).latents

    before = torch.get_rng_state()
    once, again = run(1), run(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(once, again)
    assert len(torch.unique(once.flatten(1), dim=0)) == 4


def test_rows_of_resampled_particles_say_where_they_began() -> None:
    generators = make_generators(range(4))
    scheduler = make_scheduler("euler_ancestral", toy.config_of("euler_ancestral"), 20, torch.device("cpu"))
    noise = initial_noise(generators, toy.SHAPE)
    steer = Steer(toy.reward, 0, strength=9.0)
    states = list(denoise(toy.network(), scheduler, noise, generators, select=steer))
    assert states[0].rows == (0, 1, 2, 3)
    assert len(set(states[-1].rows)) < 4
