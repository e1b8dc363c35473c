"""Guidance on the toy: corrections arrive with one strength, whatever the scheduler, its steps and the guided ones."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import toy

from clipgen.sampling.loop import Correction, PredictNoise, StepInput, step_state
from clipgen.sampling.prediction import NoiseLevel
from clipgen.sampling.schedulers import SCHEDULERS

STRENGTH = 40.0  # of a tenth of the data's small rms: hits go from a twelfth to about a half
DETERMINISTIC = ["ddim", "euler", "heun", "dpm2", "dpm++_2m", "dpm++_2s", "unipc", "deis", "pndm"]
FLOWS = ["flow_euler", "flow_heun", "dpm++_2m", "unipc"]
NOISY = ["euler_ancestral", "ddpm", "sa_solver"]


def guided(correction: Correction, network: PredictNoise | None = None) -> PredictNoise:
    plain = network or toy.network()

    def predict(step_input):
        told = plain(step_input)
        return replace(told, correction=correction(step_state(step_input, told, range(1000))))

    return predict


def strengths(name, prediction, counts, rows=256):
    """Hits by number of steps."""
    return [
        toy.hits(toy.draw(guided(toy.push(STRENGTH)), name, steps, rows, prediction=prediction).latents)
        for steps in counts
    ]


@pytest.mark.parametrize(("alpha", "sigma"), [(0.9, 0.4), (0.3, 0.7), (1.0, 3.0)])
def test_the_toy_knows_its_own_mean(alpha, sigma):
    """Tweedie: alpha E[x0 | x] = x + sigma^2 times the gradient of log p(x), by automatic differentiation."""
    x = torch.randn(16, *toy.SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    deviation = ((alpha * toy.SPREAD.double()).square() + sigma**2).sqrt()
    kinds = torch.distributions.Normal(alpha * toy.MODES.double(), deviation)
    density = kinds.log_prob(x.flatten(1)[:, None]).sum(dim=2).logsumexp(dim=1).sum()
    (score,) = torch.autograd.grad(density, x)
    assert torch.allclose(toy.mean_x0(x, alpha, sigma), (x + sigma**2 * score) / alpha, atol=1e-5)


def test_the_toy_knows_its_rewards_gradient():
    x0 = torch.randn(16, *toy.SHAPE, generator=torch.Generator().manual_seed(2)).requires_grad_()
    (gradient,) = torch.autograd.grad(toy.reward(x0).sum(), x0)
    assert torch.allclose(toy.reward_gradient(x0.detach()), gradient, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow"])
def test_the_toy_draws_its_modes_alike(prediction):
    latents = toy.draw(toy.network(), "unipc", 20, 600, prediction=prediction).latents.flatten(1)
    near = torch.cdist(latents[:, : toy.INSIDE], toy.MODES[:, : toy.INSIDE]).argmin(dim=1)
    share = near.bincount(minlength=toy.COUNT) / len(near)
    assert share.min() > 0.04
    assert share.max() < 0.14
    assert toy.off_manifold(latents) < 1.0


@pytest.mark.parametrize(
    ("name", "prediction"), [*((name, "epsilon") for name in DETERMINISTIC), *((name, "flow") for name in FLOWS)]
)
def test_guidance_is_as_strong_at_any_number_of_steps(name, prediction):
    found = strengths(name, prediction, (10, 20, 40, 80))
    mean = sum(found) / len(found)
    assert mean > 0.4  # unguided .08
    assert found == pytest.approx([mean] * 4, rel=0.2)


@pytest.mark.parametrize("name", NOISY)
def test_fresh_noise_in_each_step_leaves_the_strength_alike(name):
    """Within a quarter: few steps, of an ancestral scheduler, are 22 % above the mean on 2,048 rows."""
    found = strengths(name, "epsilon", (10, 20, 40), rows=384)
    mean = sum(found) / len(found)
    assert mean > 0.3
    assert found == pytest.approx([mean] * 3, rel=0.25)


@pytest.mark.parametrize(("name", "prediction"), [("ddim", "epsilon"), ("dpm++_2m", "v_prediction"), ("euler", "flow")])
def test_guiding_every_second_or_fourth_step_is_as_strong(name, prediction):
    found = [
        toy.hits(toy.draw(guided(toy.push(STRENGTH, every=every)), name, 40, 256, prediction=prediction).latents)
        for every in (1, 2, 3, 4)
    ]
    assert found == pytest.approx([sum(found) / 4] * 4, abs=0.05)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_the_prediction_type_does_not_matter(prediction):
    found = toy.draw(guided(toy.push(STRENGTH)), "dpm++_2m", 20, 128, prediction=prediction).latents
    expected = toy.draw(guided(toy.push(STRENGTH)), "dpm++_2m", 20, 128).latents
    plain = toy.draw(toy.network(), "dpm++_2m", 20, 128, prediction=prediction).latents
    if prediction != "flow":  # whose path is another one
        assert torch.allclose(found, expected, atol=1e-2)
    assert toy.hits(found) > toy.hits(plain) + 0.3
    assert float(toy.reward(found).mean()) > float(toy.reward(plain).mean()) + 0.3


def test_stopping_early_lets_denoising_project_out_what_cheats():
    """The reward's easy way out is a direction where no data lies: guided to the end samples stay there."""
    ends = {stop: toy.draw(guided(toy.push(STRENGTH, stop=stop)), "unipc", 20, 128).latents for stop in (0.7, 1.0)}
    plain = toy.draw(toy.network(), "unipc", 20, 128).latents
    outside = {stop: toy.off_manifold(latents) for stop, latents in ends.items()}
    assert outside[0.7] < 1.25 * toy.off_manifold(plain)
    assert outside[1.0] > 1.5 * outside[0.7]


def test_a_gradient_through_the_denoiser_leaves_the_cheating_direction():
    """Its Jacobian is (alpha / sigma^2) Cov[x0 | x], small wherever the data is narrow."""
    latents = torch.randn(32, *toy.SHAPE, generator=torch.Generator().manual_seed(3))
    level = NoiseLevel(math.sqrt(0.5), math.sqrt(0.5))
    step_input = StepInput(latents, lambda x: x, torch.tensor(500), level, "epsilon", 5, 10)
    with torch.no_grad():
        told = toy.network(scale=4.0, with_graph=lambda at: True)(step_input)
        moment = step_state(step_input, told, range(32))
    fast = toy.reward_gradient(moment.x0)
    (through,) = torch.autograd.grad(moment.x0_cond, told.latents, fast)
    outside = [float(each.flatten(1)[:, toy.INSIDE :].norm() / each.norm()) for each in (fast, through)]
    assert outside[0] > 0.9
    assert outside[1] < 0.1
    assert torch.allclose(moment.x0, moment.x0_cond, atol=1e-4)  # one prior, so guidance at any scale changes nothing


def test_every_kind_of_scheduler_is_here():
    kinds = {SCHEDULERS[name].class_name for name in (*DETERMINISTIC, *FLOWS, *NOISY)}
    rest = {spec.class_name for spec in SCHEDULERS.values()} - kinds
    # DPM2 a is as Euler a and takes long; the two others draw all noise anew, so that a step forgets all but its x0
    assert rest == {"KDPM2AncestralDiscreteScheduler", "LCMScheduler", "FlowMatchLCMScheduler"}
