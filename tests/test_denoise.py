from __future__ import annotations

import pytest
import tiny
import torch

from clipgen.denoise import Prediction, denoise, generators_of, make_scheduler, start_noise
from clipgen.errors import SettingsError
from clipgen.schedulers import SCHEDULERS

CPU = torch.device("cpu")
CONFIG = {**tiny.BETAS, "prediction_type": "epsilon"}
SHAPE = (4, 8, 8)


def towards_noise(point):
    """A network of one multiplication."""
    output = point.scaled(point.latents) * 0.3
    return Prediction(output, output, None, point.latents)


def states(name, seeds, *, steps=5, eta=0.0, predict=towards_noise):
    generators = generators_of(seeds)
    noise = start_noise(generators, SHAPE)
    return list(denoise(predict, make_scheduler(name, CONFIG, steps, CPU), noise, generators, eta))


def test_noise_depends_on_the_pictures_seed_alone():
    both = start_noise(generators_of([3, 4]), SHAPE)
    assert torch.equal(both[1:], start_noise(generators_of([4]), SHAPE))
    assert torch.equal(both[:1], torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(3)))
    assert start_noise(generators_of([2**63 - 1]), SHAPE).isfinite().all()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_runs_each_picture_by_itself(name):
    together = states(name, [3, 4], eta=0.5)
    alone = states(name, [4], eta=0.5)
    assert [state.index for state in together] == list(range(together[0].steps))
    assert together[-1].latents.isfinite().all()
    assert torch.allclose(together[-1].latents[1:], alone[-1].latents, atol=1e-6)
    assert torch.allclose(together[-1].x0[1:], alone[-1].x0, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("config", [CONFIG, tiny.ZERO_TERMINAL], ids=["epsilon", "zero-terminal"])
def test_every_scheduler_runs_few_steps_and_many(name, config):
    """Karras levels from zero terminal SNR round to equal timesteps, on which diffusers' own search goes astray."""
    for steps in (1, 2, 50):
        generators = generators_of([3])
        scheduler = make_scheduler(name, config, steps, CPU)
        found = list(denoise(towards_noise, scheduler, start_noise(generators, SHAPE), generators))
        assert found[-1].latents.isfinite().all()
        assert found[-1].x0.isfinite().all()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_loop_draws_from_no_global_generator(name):
    torch.manual_seed(0)
    first = states(name, [3], eta=1.0)
    torch.manual_seed(1)
    assert torch.equal(states(name, [3], eta=1.0)[-1].latents, first[-1].latents)


def test_eta_is_ddims():
    assert not torch.equal(states("ddim", [3], eta=1.0)[-1].latents, states("ddim", [3])[-1].latents)
    assert torch.equal(states("euler", [3], eta=1.0)[-1].latents, states("euler", [3])[-1].latents)


def test_the_loop_is_lazy_and_says_how_far_it_is():
    seen = []

    def predict(point):
        seen.append(point.progress)
        return towards_noise(point)

    generators = generators_of([1])
    loop = denoise(predict, make_scheduler("ddim", CONFIG, 4, CPU), start_noise(generators, SHAPE), generators)
    assert next(loop).timestep > next(loop).timestep
    loop.close()
    assert seen == [0.0, 0.25]


def test_gradients_stay_the_callers_own():
    loop = iter(states("ddim", [1]))
    next(loop)
    assert torch.is_grad_enabled()


def test_x0_of_the_last_ddim_step_is_where_it_ends():
    last = states("ddim", [1])[-1]
    assert (last.x0 - last.latents).abs().mean() < 0.1


def test_a_scheduler_that_cannot_predict_the_sample_is_refused():
    with pytest.raises(SettingsError, match="Scheduler 'pndm' cannot run a model that predicts the sample"):
        make_scheduler("pndm", {**CONFIG, "prediction_type": "sample"}, 5, CPU)
