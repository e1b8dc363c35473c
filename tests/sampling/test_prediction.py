from __future__ import annotations

import diffusers
import pytest
import tiny
import torch

from clipgen.errors import ModelError, SettingsError
from clipgen.sampling.make_scheduler import make_scheduler
from clipgen.sampling.prediction import (
    CORRECTED_AFTER_STEP,
    FLOW_MATCHING,
    PREDICTION_TYPES,
    NoiseLevel,
    inject,
    noise_level,
    read_prediction_type,
    recover_x0,
    shift_after_step,
    step_count,
    step_noise_levels,
)
from clipgen.sampling.schedulers import SCHEDULERS

CPU = torch.device("cpu")
CASES = [
    (name, prediction) for name, spec in SCHEDULERS.items() for prediction in PREDICTION_TYPES if spec.runs(prediction)
]


def scheduler_of(name, prediction, steps):
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    config = flow if prediction == "flow" else {**tiny.BETAS, "prediction_type": prediction}
    return make_scheduler(name, config, steps, CPU)


def random_tensor(seed, scale=1.0):
    return torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(seed)) * scale


def output_for(x0, noise, level, prediction):
    """Returns the exact model output: the definition of each prediction type at variance 1."""
    alpha, sigma = level.alpha / level.norm, level.sigma / level.norm
    return {"epsilon": noise, "sample": x0, "v_prediction": alpha * noise - sigma * x0, "flow": noise - x0}[prediction]


def take_step(scheduler, name, output, timestep, sample, generator):
    if type(scheduler).__name__ not in FLOW_MATCHING:
        scheduler.scale_model_input(sample, timestep)
    options = {"generator": generator} if SCHEDULERS[name].stochastic else {}
    return scheduler.step(output, timestep, sample, **options)


def own_x0(scheduler, step, timestep, sample):
    """Returns the x0 that the scheduler computed itself, None if it does not expose it."""
    if hasattr(step, "pred_original_sample"):
        return step.pred_original_sample
    if hasattr(step, "denoised"):
        skip, out = scheduler.get_scalings_for_boundary_condition_discrete(timestep)
        return (step.denoised - skip * sample) / out
    kind = type(scheduler).__name__
    stores_x0 = kind.startswith(("DPMSolver", "UniPC", "SASolver"))
    return scheduler.model_outputs[-1] if stores_x0 else None


@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_inject_adds_exactly_the_correction_to_x0(name, prediction):
    """recover_x0 equals the scheduler's own x0 before and after the injection, at every step and stage."""
    scheduler, generator = scheduler_of(name, prediction, 4), torch.Generator().manual_seed(1)
    sample = random_tensor(1) * (1.0 if prediction == "flow" else scheduler.init_noise_sigma)
    compared = 0
    for index, timestep in enumerate(scheduler.timesteps):
        level, output, correction = (
            noise_level(scheduler, timestep),
            random_tensor(10 + index),
            random_tensor(20 + index, 0.1),
        )
        x0 = recover_x0(output, sample, level, prediction)
        output = inject(output, correction, level, prediction)
        moved = recover_x0(output, sample, level, prediction)
        near = 1e-5 * max(1.0, float(x0.abs().max()) / 4)  # x0 of random outputs is up to tens
        assert (moved - x0 - correction).abs().max() < near
        step = take_step(scheduler, name, output, timestep, sample, generator)
        if (own := own_x0(scheduler, step, timestep, sample)) is not None:
            assert (own - moved).abs().max() < near
            compared += 1
        sample = step.prev_sample
    has_no_x0 = type(scheduler).__name__.startswith(("FlowMatch", "PNDM", "DEIS"))
    assert compared == (0 if has_no_x0 else len(scheduler.timesteps))


@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_exact_model_output_recovers_x0_at_every_step(name, prediction):
    """Also for schedulers that do not expose x0 (PNDM, DEIS, flows): x_t stays alpha x0 + sigma noise."""
    scheduler, generator = scheduler_of(name, prediction, 6), torch.Generator().manual_seed(2)
    x0, sample = random_tensor(3), None
    for timestep in scheduler.timesteps:
        level = noise_level(scheduler, timestep)
        if sample is None:
            sample = level.alpha * x0 + level.sigma * random_tensor(4)
        noise = (sample - level.alpha * x0) / level.sigma
        output = output_for(x0, noise, level, prediction)
        assert torch.allclose(recover_x0(output, sample, level, prediction), x0, atol=2e-3 if level.sigma > 9 else 1e-4)
        sample = take_step(scheduler, name, output, timestep, sample, generator).prev_sample
    assert (sample - x0).abs().max() < 0.2  # some schedules end at the smallest noise level of training


@pytest.mark.parametrize("name", [name for name, spec in SCHEDULERS.items() if not spec.needs_flow])
def test_recover_and_inject_at_zero_terminal_snr(name):
    """v prediction works at alpha = 0; schedulers with sigmas start at the largest finite one."""
    scheduler = make_scheduler(name, {**tiny.ZERO_TERMINAL, "clip_sample": False}, 6, CPU)
    level = noise_level(scheduler, scheduler.timesteps[0])
    x0, noise = random_tensor(3), random_tensor(4)
    sample = level.alpha * x0 + level.sigma * noise
    output = output_for(x0, noise, level, "v_prediction")
    assert torch.allclose(recover_x0(output, sample, level, "v_prediction"), x0, atol=1e-3)
    moved = recover_x0(inject(output, x0, level, "v_prediction"), sample, level, "v_prediction")
    assert torch.allclose(moved, 2 * x0, atol=2e-3)


@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
def test_half_precision_is_computed_in_float32(prediction):
    output, ones = torch.ones(1, dtype=torch.float16), torch.ones(1)
    level = NoiseLevel(0.5, 0.8)
    assert recover_x0(output, ones, level, prediction).dtype == torch.float32
    assert inject(output, ones, level, prediction).dtype == torch.float16
    assert float(recover_x0(output, ones, level, "epsilon")) == pytest.approx(0.4)


@pytest.mark.parametrize("steps", [4, 7])
def test_shift_after_step_equals_injection_for_pndm(steps):
    """Injecting before a DDIM step between the same noise levels equals the shift after it."""
    pndm = make_scheduler("pndm", tiny.BETAS, steps, CPU)
    ddim = make_scheduler("ddim", {**tiny.BETAS, "set_alpha_to_one": False}, steps, CPU)
    sample, output, correction = random_tensor(5), random_tensor(6), random_tensor(7)
    for index in (0, steps):  # the first and the last step; the second one repeats the first
        start, end = step_noise_levels(pndm, index)
        timestep = pndm.timesteps[index]
        plain = ddim.step(output, timestep, sample).prev_sample
        moved = ddim.step(inject(output, correction, start, "epsilon"), timestep, sample).prev_sample
        assert torch.allclose(plain + shift_after_step(correction, start, end), moved, atol=1e-5)
    assert step_noise_levels(pndm, 1) == step_noise_levels(pndm, 0)
    assert step_noise_levels(pndm, 2)[0] == step_noise_levels(pndm, 1)[1]


def test_shift_after_step_equals_injection_for_lms():
    """LMS of order 1 is Euler's method, for which both are equal."""
    pytest.importorskip("scipy")
    scheduler = diffusers.LMSDiscreteScheduler(**tiny.BETAS)
    sample, output, correction = random_tensor(5), random_tensor(6), random_tensor(7)
    ends = []
    for injected in (False, True):
        scheduler.set_timesteps(5)
        timestep = scheduler.timesteps[0]
        level = noise_level(scheduler, timestep)
        model_output = inject(output, correction, level, "epsilon") if injected else output
        scheduler.scale_model_input(sample, timestep)
        ends.append(scheduler.step(model_output, timestep, sample, order=1).prev_sample)
    assert torch.allclose(ends[0] + shift_after_step(correction, *step_noise_levels(scheduler, 0)), ends[1], atol=1e-5)
    assert "LMSDiscreteScheduler" in CORRECTED_AFTER_STEP


@pytest.mark.parametrize("name", ["TCDScheduler", "CogVideoXDDIMScheduler", "DDPMWuerstchenScheduler"])
def test_noise_level_of_other_schedulers_is_that_of_add_noise(name):
    scheduler = getattr(diffusers, name)()
    scheduler.set_timesteps(4)
    assert step_count(scheduler) == 4
    x0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timestep = scheduler.timesteps[1:2]
    level = noise_level(scheduler, timestep)
    sample = scheduler.add_noise(x0, noise, timestep)
    assert torch.allclose(recover_x0(noise, sample, level, "epsilon"), x0, atol=1e-4)


def test_noise_level_of_trigflow_is_that_of_its_step():
    scheduler = diffusers.SCMScheduler()
    scheduler.set_timesteps(2, timesteps=None, intermediate_timesteps=1.3)
    prediction_type = read_prediction_type({**scheduler.config, "_class_name": "SCMScheduler"})
    model_output, sample = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps[: step_count(scheduler)]:
        x0 = recover_x0(model_output, sample, noise_level(scheduler, timestep), prediction_type)
        result = scheduler.step(model_output, timestep, sample)
        assert torch.allclose(result.pred_original_sample, x0, atol=1e-5)
        sample = result.prev_sample


@pytest.mark.parametrize("scheduler_class", [diffusers.EDMEulerScheduler, diffusers.IPNDMScheduler])
def test_unsupported_scheduler_raises_with_the_supported_ones(scheduler_class):
    scheduler = scheduler_class()
    scheduler.set_timesteps(3)
    name = scheduler_class.__name__.removesuffix("Scheduler")
    with pytest.raises(SettingsError, match=rf"^Scheduler '{name}' cannot be guided\. Works: ddim, .*, lcm, .*\.$"):
        noise_level(scheduler, scheduler.timesteps[0])


def test_read_prediction_type():
    assert read_prediction_type({}) == "epsilon"
    assert read_prediction_type(tiny.ZERO_TERMINAL) == "v_prediction"
    assert read_prediction_type({"prediction_type": "flow_prediction"}) == "flow"
    assert all(read_prediction_type({"_class_name": name}) == "flow" for name in FLOW_MATCHING)
    with pytest.raises(ModelError, match=r"'score' is not supported\. Works: epsilon, v_prediction, sample, flow\."):
        read_prediction_type({"prediction_type": "score"})
    with pytest.raises(ModelError, match="pure noise has no x0"):
        read_prediction_type({"prediction_type": "epsilon", "rescale_betas_zero_snr": True})
