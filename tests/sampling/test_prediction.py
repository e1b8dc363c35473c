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


def drawn(seed, scale=1.0):
    return torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(seed)) * scale


def output_for(x0, noise, level, prediction):
    """What a perfect network says: the definition of each prediction type at variance one."""
    alpha, sigma = level.alpha / level.norm, level.sigma / level.norm
    return {"epsilon": noise, "sample": x0, "v_prediction": alpha * noise - sigma * x0, "flow": noise - x0}[prediction]


def stepped(scheduler, name, output, timestep, sample, draw):
    if type(scheduler).__name__ not in FLOW_MATCHING:
        scheduler.scale_model_input(sample, timestep)
    options = {"generator": draw} if SCHEDULERS[name].stochastic else {}
    return scheduler.step(output, timestep, sample, **options)


def own_x0(scheduler, step, timestep, sample):
    """x0 as the scheduler itself computes it, where it lets us see it."""
    if hasattr(step, "pred_original_sample"):
        return step.pred_original_sample
    if hasattr(step, "denoised"):
        skip, out = scheduler.get_scalings_for_boundary_condition_discrete(timestep)
        return (step.denoised - skip * sample) / out
    kind = type(scheduler).__name__
    keeps = kind.startswith(("DPMSolver", "UniPC", "SASolver"))
    return scheduler.model_outputs[-1] if keeps else None


@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_a_correction_moves_x0_by_itself_and_by_nothing_else(name, prediction):
    """Our x0 and the scheduler's own are one, before and after, at every step and stage."""
    scheduler, draw = scheduler_of(name, prediction, 4), torch.Generator().manual_seed(1)
    sample = drawn(1) * (1.0 if prediction == "flow" else scheduler.init_noise_sigma)
    seen = 0
    for index, timestep in enumerate(scheduler.timesteps):
        level, output, correction = noise_level(scheduler, timestep), drawn(10 + index), drawn(20 + index, 0.1)
        x0 = recover_x0(output, sample, level, prediction)
        output = inject(output, correction, level, prediction)
        moved = recover_x0(output, sample, level, prediction)
        near = 1e-5 * max(1.0, float(x0.abs().max()) / 4)  # x0 of random outputs has tens of units
        assert (moved - x0 - correction).abs().max() < near
        step = stepped(scheduler, name, output, timestep, sample, draw)
        if (own := own_x0(scheduler, step, timestep, sample)) is not None:
            assert (own - moved).abs().max() < near
            seen += 1
        sample = step.prev_sample
    hides = type(scheduler).__name__.startswith(("FlowMatch", "PNDM", "DEIS"))
    assert seen == (0 if hides else len(scheduler.timesteps))


@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_a_perfect_network_gives_back_x0_at_every_step(name, prediction):
    """Also where no x0 can be read (PNDM, DEIS, flows): the sample stays alpha x0 + sigma noise all the way down."""
    scheduler, draw = scheduler_of(name, prediction, 6), torch.Generator().manual_seed(2)
    x0, sample = drawn(3), None
    for timestep in scheduler.timesteps:
        level = noise_level(scheduler, timestep)
        if sample is None:
            sample = level.alpha * x0 + level.sigma * drawn(4)
        noise = (sample - level.alpha * x0) / level.sigma
        output = output_for(x0, noise, level, prediction)
        assert torch.allclose(recover_x0(output, sample, level, prediction), x0, atol=2e-3 if level.sigma > 9 else 1e-4)
        sample = stepped(scheduler, name, output, timestep, sample, draw).prev_sample
    assert (sample - x0).abs().max() < 0.2  # some schedules end at the smallest level of training


@pytest.mark.parametrize("name", [name for name, spec in SCHEDULERS.items() if not spec.needs_flow])
def test_zero_terminal_snr_begins_with_pure_noise(name):
    """The v rows hold where alpha is 0; schedulers that work on sigmas take the largest finite one."""
    scheduler = make_scheduler(name, {**tiny.ZERO_TERMINAL, "clip_sample": False}, 6, CPU)
    level = noise_level(scheduler, scheduler.timesteps[0])
    x0, noise = drawn(3), drawn(4)
    sample = level.alpha * x0 + level.sigma * noise
    output = output_for(x0, noise, level, "v_prediction")
    assert torch.allclose(recover_x0(output, sample, level, "v_prediction"), x0, atol=1e-3)
    moved = recover_x0(inject(output, x0, level, "v_prediction"), sample, level, "v_prediction")
    assert torch.allclose(moved, 2 * x0, atol=2e-3)


@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
def test_half_precision_outputs_are_computed_in_float32_and_come_back_in_their_own(prediction):
    output, ones = torch.ones(1, dtype=torch.float16), torch.ones(1)
    level = NoiseLevel(0.5, 0.8)
    assert recover_x0(output, ones, level, prediction).dtype == torch.float32
    assert inject(output, ones, level, prediction).dtype == torch.float16
    assert float(recover_x0(output, ones, level, "epsilon")) == pytest.approx(0.4)


@pytest.mark.parametrize("steps", [4, 7])
def test_after_the_step_pndm_is_where_an_injection_would_have_put_it(steps):
    """One step of DDIM between the same two levels, injected, and the correction after it, agree."""
    pndm = make_scheduler("pndm", tiny.BETAS, steps, CPU)
    ddim = make_scheduler("ddim", {**tiny.BETAS, "set_alpha_to_one": False}, steps, CPU)
    sample, output, correction = drawn(5), drawn(6), drawn(7)
    for index in (0, steps):  # the first and the last step; the one after the first repeats it
        start, end = step_noise_levels(pndm, index)
        timestep = pndm.timesteps[index]
        plain = ddim.step(output, timestep, sample).prev_sample
        moved = ddim.step(inject(output, correction, start, "epsilon"), timestep, sample).prev_sample
        assert torch.allclose(plain + shift_after_step(correction, start, end), moved, atol=1e-5)
    assert step_noise_levels(pndm, 1) == step_noise_levels(pndm, 0)
    assert step_noise_levels(pndm, 2)[0] == step_noise_levels(pndm, 1)[1]


def test_after_the_step_lms_is_where_an_injection_would_have_put_it():
    """With one step of history LMS is Euler's method, for which both ways agree."""
    pytest.importorskip("scipy")
    scheduler = diffusers.LMSDiscreteScheduler(**tiny.BETAS)
    sample, output, correction = drawn(5), drawn(6), drawn(7)
    ends = []
    for injected in (False, True):
        scheduler.set_timesteps(5)
        timestep = scheduler.timesteps[0]
        level = noise_level(scheduler, timestep)
        told = inject(output, correction, level, "epsilon") if injected else output
        ends.append(scheduler.step(told, timestep, sample, order=1).prev_sample)
    assert torch.allclose(ends[0] + shift_after_step(correction, *step_noise_levels(scheduler, 0)), ends[1], atol=1e-5)
    assert "LMSDiscreteScheduler" in CORRECTED_AFTER_STEP


@pytest.mark.parametrize("made", [diffusers.EDMEulerScheduler, diffusers.IPNDMScheduler, diffusers.TCDScheduler])
def test_a_scheduler_that_cannot_be_guided_is_named_with_those_that_can(made):
    scheduler = made()
    scheduler.set_timesteps(3)
    name = made.__name__.removesuffix("Scheduler")
    with pytest.raises(SettingsError, match=rf"^Scheduler '{name}' cannot be guided\. Works: ddim, .*, lcm, .*\.$"):
        noise_level(scheduler, scheduler.timesteps[0])


def test_predictions_that_cannot_work_are_refused():
    assert read_prediction_type({}) == "epsilon"
    assert read_prediction_type(tiny.ZERO_TERMINAL) == "v_prediction"
    assert read_prediction_type({"prediction_type": "flow_prediction"}) == "flow"
    assert all(read_prediction_type({"_class_name": name}) == "flow" for name in FLOW_MATCHING)
    with pytest.raises(ModelError, match=r"'score' is not supported\. Works: epsilon, v_prediction, sample, flow\."):
        read_prediction_type({"prediction_type": "score"})
    with pytest.raises(ModelError, match="pure noise has no x0"):
        read_prediction_type({"prediction_type": "epsilon", "rescale_betas_zero_snr": True})
