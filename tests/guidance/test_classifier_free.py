from __future__ import annotations

import pytest
import torch

from clipgen.guidance.classifier_free import classifier_free, rescaled

NOISE = torch.Generator().manual_seed(0)
LATENTS = torch.randn(2, 4, 8, 8, generator=NOISE)
COND = {"told": torch.randn(2, 4, 1, 1, generator=NOISE)}
UNCOND = {"told": torch.randn(2, 4, 1, 1, generator=NOISE)}
TIME = torch.tensor(5)


class Network:
    """A network that is linear in what it is told, and counts its rows."""

    def __init__(self):
        self.rows = []

    def __call__(self, latents, timestep, told):
        self.rows.append(len(latents))
        return latents * told["told"]


def test_the_formula():
    network = Network()
    guided = classifier_free(network, COND, UNCOND, scale=3.0)(LATENTS, TIME, 0.0)
    expected = LATENTS * (UNCOND["told"] + 3.0 * (COND["told"] - UNCOND["told"]))
    assert torch.allclose(guided, expected, atol=1e-5)
    assert network.rows == [4]


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_without_a_scale_the_prompt_alone_runs(scale):
    network = Network()
    guided = classifier_free(network, COND, UNCOND, scale=scale)(LATENTS, TIME, 0.0)
    assert torch.equal(guided, LATENTS * COND["told"])
    assert network.rows == [2]


def test_the_interval_halves_the_rows_outside_it():
    network = Network()
    guided = classifier_free(network, COND, UNCOND, scale=3.0, start=0.25, stop=0.75)
    for progress in (0.0, 0.25, 0.5, 0.75, 0.9):
        guided(LATENTS, TIME, progress)
    assert network.rows == [2, 4, 4, 2, 2]


def test_rescale_brings_back_the_deviation():
    cond, output = LATENTS, LATENTS * 4.0 + 1.0
    deviation = rescaled(output, cond, 1.0).std(dim=(1, 2, 3))
    assert torch.allclose(deviation, cond.std(dim=(1, 2, 3)), rtol=1e-5)
    assert torch.equal(rescaled(output, cond, 0.0), output)


def test_a_picture_does_not_feel_the_others():
    together = classifier_free(Network(), COND, UNCOND, scale=3.0, rescale=0.5)(LATENTS, TIME, 0.0)
    first = classifier_free(Network(), {"told": COND["told"][:1]}, {"told": UNCOND["told"][:1]}, scale=3.0, rescale=0.5)
    assert torch.allclose(together[:1], first(LATENTS[:1], TIME, 0.0), atol=1e-6)
