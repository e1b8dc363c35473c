from __future__ import annotations

import diffusers
import pytest
import tiny
import torch

from clipgen.errors import ModelError
from clipgen.prediction import NO_SAMPLE_PREDICTION, NoiseLevel, check_prediction, noise_level, recover_x0
from clipgen.schedulers import SCHEDULERS

CASES = [
    (name, prediction)
    for name, spec in SCHEDULERS.items()
    for prediction in ("epsilon", "v_prediction", "sample")
    if prediction != "sample" or spec.class_name not in NO_SAMPLE_PREDICTION
]


def scheduler_of(name, **config):
    spec = SCHEDULERS[name]
    return getattr(diffusers, spec.class_name).from_config({**tiny.BETAS, **config, **spec.options})


def output_for(x0, noise, level, prediction):
    """What a perfect network says: the definition of each prediction type at variance one."""
    alpha, sigma = level.alpha / level.norm, level.sigma / level.norm
    return {"epsilon": noise, "sample": x0, "v_prediction": alpha * noise - sigma * x0}[prediction]


def own_x0(scheduler, step):
    """x0 as the scheduler itself computes it, where it lets us see it."""
    if hasattr(step, "pred_original_sample"):
        return step.pred_original_sample
    converts = type(scheduler).__name__ in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
    return scheduler.model_outputs[-1] if converts else None


@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_x0_is_the_schedulers_own(name, prediction):
    scheduler = scheduler_of(name, prediction_type=prediction)
    scheduler.set_timesteps(6)
    draw = torch.Generator().manual_seed(1)
    sample = torch.randn(2, 4, 8, 8, generator=draw) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(sample, timestep)
        level = noise_level(scheduler, timestep)
        output = torch.randn(2, 4, 8, 8, generator=draw)
        x0 = recover_x0(output, sample, level, prediction)
        options = {} if not SCHEDULERS[name].stochastic else {"generator": draw}
        step = scheduler.step(output, timestep, sample, **options)
        if (own := own_x0(scheduler, step)) is not None:
            assert torch.allclose(x0, own, rtol=1e-5, atol=1e-5 * max(1.0, float(own.abs().max())))
        sample = step.prev_sample


@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_a_perfect_network_gives_back_x0_at_every_step(name, prediction):
    """Also where no x0 can be read (PNDM, DEIS): the sample stays alpha x0 + sigma noise all the way down."""
    scheduler = scheduler_of(name, prediction_type=prediction)
    scheduler.set_timesteps(8)
    draw = torch.Generator().manual_seed(2)
    x0 = torch.randn(1, 4, 8, 8, generator=draw)
    sample = None
    for timestep in scheduler.timesteps:
        level = noise_level(scheduler, timestep)
        if sample is None:
            sample = level.alpha * x0 + level.sigma * torch.randn(1, 4, 8, 8, generator=draw)
        noise = (sample - level.alpha * x0) / max(level.sigma, 1e-12)
        output = output_for(x0, noise, level, prediction)
        assert torch.allclose(recover_x0(output, sample, level, prediction), x0, atol=2e-3 if level.sigma > 9 else 1e-4)
        scheduler.scale_model_input(sample, timestep)
        options = {"generator": draw} if SCHEDULERS[name].stochastic else {}
        sample = scheduler.step(output, timestep, sample, **options).prev_sample


@pytest.mark.parametrize("name", SCHEDULERS)
def test_zero_terminal_snr_begins_with_pure_noise(name):
    """The v rows hold where alpha is 0; schedulers that work on sigmas take the largest finite one."""
    scheduler = scheduler_of(name, **{**tiny.ZERO_TERMINAL, "clip_sample": False})
    scheduler.set_timesteps(6)
    level = noise_level(scheduler, scheduler.timesteps[0])
    x0 = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    sample = level.alpha * x0 + level.sigma * noise
    output = output_for(x0, noise, level, "v_prediction")
    assert torch.allclose(recover_x0(output, sample, level, "v_prediction"), x0, atol=1e-3)


def test_half_precision_outputs_are_recovered_in_float32():
    x0 = recover_x0(torch.ones(1, dtype=torch.float16), torch.ones(1), NoiseLevel(0.5, 0.8), "epsilon")
    assert x0.dtype == torch.float32
    assert float(x0) == pytest.approx(0.4)


def test_an_unknown_scheduler_class_is_named():
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(3)
    with pytest.raises(ModelError, match="'EDMEulerScheduler' is not known"):
        noise_level(scheduler, scheduler.timesteps[0])


def test_predictions_that_cannot_work_are_refused():
    assert check_prediction({}) == "epsilon"
    assert check_prediction(tiny.ZERO_TERMINAL) == "v_prediction"
    assert check_prediction({"prediction_type": "flow_prediction"}) == "flow"
    assert check_prediction({"_class_name": "FlowMatchEulerDiscreteScheduler"}) == "flow"
    with pytest.raises(ModelError, match="'score' is not known. Works: epsilon, v_prediction, sample, flow"):
        check_prediction({"prediction_type": "score"})
    with pytest.raises(ModelError, match="pure noise has no x0"):
        check_prediction({"prediction_type": "epsilon", "rescale_betas_zero_snr": True})
