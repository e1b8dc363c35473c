from __future__ import annotations

import pytest
import torch

from clipgen.guidance.classifier_free import classifier_free, rescaled
from clipgen.sampling.loop import StepInput, step_state
from clipgen.sampling.prediction import NoiseLevel

NOISE = torch.Generator().manual_seed(0)
LATENTS = torch.randn(2, 4, 8, 8, generator=NOISE)
COND = {"told": torch.randn(2, 4, 1, 1, generator=NOISE)}
UNCOND = {"told": torch.randn(2, 4, 1, 1, generator=NOISE)}
LEVEL = NoiseLevel(0.8, 0.6)


def step_input(latents=LATENTS, progress=0.0):
    """A step at which the network takes its latents doubled."""
    return StepInput(latents, lambda x: 2.0 * x, torch.tensor(5), LEVEL, "epsilon", int(progress * 20), 20)


class Network:
    """A network that is linear in what it is told, and counts its rows."""

    def __init__(self):
        self.rows = []

    def __call__(self, latents, timestep, told):
        self.rows.append(len(latents))
        return latents / 2.0 * told["told"]


def test_the_formula():
    network = Network()
    guided = classifier_free(network, COND, UNCOND, scale=3.0)(step_input()).model_output
    expected = LATENTS * (UNCOND["told"] + 3.0 * (COND["told"] - UNCOND["told"]))
    assert torch.allclose(guided, expected, atol=1e-5)
    assert network.rows == [4]


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_without_a_scale_the_prompt_alone_runs(scale):
    network = Network()
    guided = classifier_free(network, COND, UNCOND, scale=scale)(step_input()).model_output
    assert torch.equal(guided, LATENTS * COND["told"])
    assert network.rows == [2]


def test_the_interval_halves_the_rows_outside_it():
    network = Network()
    guided = classifier_free(network, COND, UNCOND, scale=3.0, start=0.25, stop=0.75)
    for progress in (0.0, 0.25, 0.5, 0.75, 0.9):
        guided(step_input(progress=progress))
    assert network.rows == [2, 4, 4, 2, 2]


def test_rescale_brings_back_the_deviation():
    cond, output = LATENTS, LATENTS * 4.0 + 1.0
    deviation = rescaled(output, cond, 1.0).std(dim=(1, 2, 3))
    assert torch.allclose(deviation, cond.std(dim=(1, 2, 3)), rtol=1e-5)
    assert torch.equal(rescaled(output, cond, 0.0), output)


def test_a_picture_does_not_feel_the_others():
    together = classifier_free(Network(), COND, UNCOND, scale=3.0, rescale=0.5)(step_input()).model_output
    first = classifier_free(Network(), {"told": COND["told"][:1]}, {"told": UNCOND["told"][:1]}, scale=3.0, rescale=0.5)
    assert torch.allclose(together[:1], first(step_input(LATENTS[:1])).model_output, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_both_halves_are_told(scale):
    told = classifier_free(Network(), COND, UNCOND, scale=scale)(step_input())
    assert torch.equal(told.cond, LATENTS * COND["told"])
    assert told.uncond is None if scale == 1.0 else torch.equal(told.uncond, LATENTS * UNCOND["told"])
    assert told.latents is LATENTS
    assert told.correction is None


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_graph_is_the_conditional_halfs_alone(scale):
    """The output is the same one, its x0 leads back to fresh latents, and nothing of the caller's gets a gradient."""
    network, plain = Network(), classifier_free(Network(), COND, UNCOND, scale=scale)
    with torch.no_grad():
        told = classifier_free(network, COND, UNCOND, scale=scale, with_graph=lambda at: at.progress > 0.2)(
            step_input(progress=0.5)
        )
        expected = plain(step_input()).model_output
        moment = step_state(step_input(), told, (1, 2))
    assert torch.equal(moment.x0, step_input().x0(expected))
    assert not moment.x0.requires_grad
    (gradient,) = torch.autograd.grad(moment.x0_cond.sum(), told.latents)
    assert torch.allclose(gradient, ((1 - LEVEL.sigma * COND["told"]) / LEVEL.alpha).expand_as(LATENTS), atol=1e-6)
    assert not LATENTS.requires_grad
    assert network.rows == [2] * (1 if scale == 1.0 else 2)


def test_without_a_wish_there_is_no_graph():
    with torch.no_grad():
        told = classifier_free(Network(), COND, UNCOND, scale=3.0)(step_input())
    assert not told.cond.requires_grad
    assert not step_state(step_input(), told, (1, 2)).x0_cond.requires_grad
