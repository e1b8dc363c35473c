from __future__ import annotations

import pytest
import torch

from clipgen.guidance.classifier_free import classifier_free, rescale_noise_cfg
from clipgen.sampling.loop import StepInput, step_state
from clipgen.sampling.prediction import NoiseLevel

NOISE = torch.Generator().manual_seed(0)
LATENTS = torch.randn(2, 4, 8, 8, generator=NOISE)
COND = {"prompt": torch.randn(2, 4, 1, 1, generator=NOISE)}
UNCOND = {"prompt": torch.randn(2, 4, 1, 1, generator=NOISE)}
LEVEL = NoiseLevel(0.8, 0.6)


def step_input(latents=LATENTS, progress=0.0):
    """Returns a step whose scale_model_input doubles the latents."""
    return StepInput(latents, lambda x: 2.0 * x, torch.tensor(5), LEVEL, "epsilon", int(progress * 20), 20)


class Network:
    """A denoiser that multiplies the latents by the conditioning, and records its batch sizes."""

    def __init__(self):
        self.batch_sizes = []

    def __call__(self, latents, timestep, conditioning):
        self.batch_sizes.append(len(latents))
        return latents / 2.0 * conditioning["prompt"]


def test_formula_of_classifier_free_guidance():
    network = Network()
    output = classifier_free(network, COND, UNCOND, scale=3.0)(step_input()).model_output
    expected = LATENTS * (UNCOND["prompt"] + 3.0 * (COND["prompt"] - UNCOND["prompt"]))
    assert torch.allclose(output, expected, atol=1e-5)
    assert network.batch_sizes == [4]


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_scale_up_to_one_skips_the_unconditional_half(scale):
    network = Network()
    output = classifier_free(network, COND, UNCOND, scale=scale)(step_input()).model_output
    assert torch.equal(output, LATENTS * COND["prompt"])
    assert network.batch_sizes == [2]


def test_unconditional_half_runs_only_inside_the_interval():
    network = Network()
    predict = classifier_free(network, COND, UNCOND, scale=3.0, start=0.25, stop=0.75)
    for progress in (0.0, 0.25, 0.5, 0.75, 0.9):
        predict(step_input(progress=progress))
    assert network.batch_sizes == [2, 4, 4, 2, 2]


def test_rescale_restores_the_standard_deviation():
    cond, output = LATENTS, LATENTS * 4.0 + 1.0
    deviation = rescale_noise_cfg(output, cond, 1.0).std(dim=(1, 2, 3))
    assert torch.allclose(deviation, cond.std(dim=(1, 2, 3)), rtol=1e-5)
    assert torch.equal(rescale_noise_cfg(output, cond, 0.0), output)


def test_rows_are_independent_of_the_batch():
    together = classifier_free(Network(), COND, UNCOND, scale=3.0, rescale=0.5)(step_input()).model_output
    first = classifier_free(
        Network(), {"prompt": COND["prompt"][:1]}, {"prompt": UNCOND["prompt"][:1]}, scale=3.0, rescale=0.5
    )
    assert torch.allclose(together[:1], first(step_input(LATENTS[:1])).model_output, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_prediction_contains_both_halves(scale):
    prediction = classifier_free(Network(), COND, UNCOND, scale=scale)(step_input())
    assert torch.equal(prediction.cond, LATENTS * COND["prompt"])
    assert prediction.uncond is None if scale == 1.0 else torch.equal(prediction.uncond, LATENTS * UNCOND["prompt"])
    assert prediction.latents is LATENTS
    assert prediction.correction is None


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_graph_belongs_to_the_conditional_half_only(scale):
    """The output is the same; x0_cond keeps a graph to new latents, and the latents of the step get none."""
    network, plain = Network(), classifier_free(Network(), COND, UNCOND, scale=scale)
    with torch.no_grad():
        prediction = classifier_free(network, COND, UNCOND, scale=scale, needs_graph=lambda step: step.progress > 0.2)(
            step_input(progress=0.5)
        )
        expected = plain(step_input()).model_output
        state = step_state(step_input(), prediction, (1, 2))
    assert torch.equal(state.x0, step_input().x0(expected))
    assert not state.x0.requires_grad
    (gradient,) = torch.autograd.grad(state.x0_cond.sum(), prediction.latents)
    assert torch.allclose(gradient, ((1 - LEVEL.sigma * COND["prompt"]) / LEVEL.alpha).expand_as(LATENTS), atol=1e-6)
    assert not LATENTS.requires_grad
    assert network.batch_sizes == [2] * (1 if scale == 1.0 else 2)


def test_no_graph_by_default():
    with torch.no_grad():
        prediction = classifier_free(Network(), COND, UNCOND, scale=3.0)(step_input())
    assert not prediction.cond.requires_grad
    assert not step_state(step_input(), prediction, (1, 2)).x0_cond.requires_grad
