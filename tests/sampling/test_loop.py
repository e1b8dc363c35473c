from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from clipgen.errors import SettingsError
from clipgen.guidance.classifier_free import classifier_free
from clipgen.sampling.loop import (
    Prediction,
    StepState,
    denoise,
    denoise_with_graph,
    initial_noise,
    make_generators,
    step_state,
)
from clipgen.sampling.make_scheduler import make_scheduler
from clipgen.sampling.schedulers import SCHEDULERS

CPU = torch.device("cpu")
CONFIG = {**tiny.BETAS, "prediction_type": "epsilon"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
DYNAMIC = {**FLOW, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
SHAPE = (4, 4, 4)
CASES = [
    pytest.param(name, config, id=f"{name}-{kind}")
    for name, spec in SCHEDULERS.items()
    for kind, config in (("epsilon", CONFIG), ("flow", FLOW))
    if spec.runs(kind) and spec.schedule_type is None
]
HISTORY = {"pndm": 0.5, "deis": 0.03}  # tolerances: they extrapolate noise estimates, which a correction changes
X0 = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(8))


def linear_denoiser(step_input):
    """A denoiser that multiplies by 0.3."""
    output = step_input.scale_model_input(step_input.latents) * 0.3
    return Prediction(output, output, None, step_input.latents)


def exact_denoiser(step_input):
    """The exact denoiser for two images X0."""
    level, x0 = step_input.level, X0[: len(step_input.latents)]
    noise = (step_input.latents - level.alpha * x0) / level.sigma
    output = noise - x0 if step_input.prediction_type == "flow" else noise
    return Prediction(output, output, None, step_input.latents)


def run_loop(name, seeds, *, config=CONFIG, steps=5, eta=0.0, predict=linear_denoiser, select=None, **kwargs):
    generators = make_generators(seeds)
    noise = initial_noise(generators, SHAPE)
    return list(denoise(predict, make_scheduler(name, config, steps, CPU), noise, generators, eta, select, **kwargs))


def test_noise_of_an_image_depends_on_its_own_seed_only():
    both = initial_noise(make_generators([3, 4]), SHAPE)
    assert torch.equal(both[1:], initial_noise(make_generators([4]), SHAPE))
    assert torch.equal(both[:1], torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(3)))
    assert initial_noise(make_generators([2**63 - 1]), SHAPE).isfinite().all()


@pytest.mark.parametrize(("name", "config"), CASES)
def test_images_do_not_depend_on_their_batch(name, config):
    together = run_loop(name, [3, 4], config=config, eta=0.5)
    alone = run_loop(name, [4], config=config, eta=0.5)
    assert [state.index for state in together] == list(range(together[0].steps))
    assert {state.rows for state in together} == {(0, 1)}
    assert together[-1].latents.isfinite().all()
    assert torch.allclose(together[-1].latents[1:], alone[-1].latents, atol=1e-6)
    assert torch.allclose(together[-1].x0[1:], alone[-1].x0, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("config", [CONFIG, tiny.ZERO_TERMINAL, FLOW], ids=["epsilon", "zero-terminal", "flow"])
def test_every_scheduler_runs_1_2_and_50_steps(name, config):
    """With zero terminal SNR, Karras sigmas round to equal timesteps, among which diffusers finds the wrong step."""
    if not SCHEDULERS[name].runs("flow" if config is FLOW else "epsilon"):
        with pytest.raises(SettingsError, match=rf"Scheduler '{name.replace('+', '.')}' cannot run a model that"):
            make_scheduler(name, config, 5, CPU)
        return
    for steps in (1, 2, 50):
        outputs = run_loop(name, [3], config=config, steps=steps)
        assert outputs[-1].latents.isfinite().all()
        assert outputs[-1].x0.isfinite().all()


@pytest.mark.parametrize(("name", "config"), CASES)
def test_loop_does_not_use_the_global_generator(name, config):
    torch.manual_seed(0)
    first = run_loop(name, [3], config=config, eta=1.0)
    torch.manual_seed(1)
    assert torch.equal(run_loop(name, [3], config=config, eta=1.0)[-1].latents, first[-1].latents)


@pytest.mark.parametrize(("name", "config"), CASES)
def test_correction_of_x0_reaches_the_final_latents(name, config):
    """An exact denoiser with the same correction at each step ends at the corrected x0."""
    added = X0.flip(0) * 0.5
    plain, moved = (
        run_loop(name, [3, 4], config=config, steps=8, predict=predict)
        for predict in (exact_denoiser, lambda step_input: replace(exact_denoiser(step_input), correction=added))
    )
    difference = moved[-1].latents - plain[-1].latents
    share = float((difference * added).sum() / added.square().sum())
    assert share == pytest.approx(1.0, abs=HISTORY.get(name, 1e-3))
    assert torch.allclose(difference, share * added, atol=1e-3)
    assert torch.allclose(moved[0].x0 - plain[0].x0, added, atol=1e-4)


def test_eta_changes_ddim_and_not_euler():
    assert not torch.equal(run_loop("ddim", [3], eta=1.0)[-1].latents, run_loop("ddim", [3])[-1].latents)
    assert torch.equal(run_loop("euler", [3], eta=1.0)[-1].latents, run_loop("euler", [3])[-1].latents)


@pytest.mark.parametrize("steps", [2, 5, 10, 20, 50])
def test_eta_one_from_zero_terminal_snr_is_finite(steps):
    """At eta = 1 the noise that remains is the square root of 0, or of a negative rounding error."""
    last = run_loop("ddim", [3], config=tiny.ZERO_TERMINAL, steps=steps, eta=1.0)[-1].latents
    assert last.isfinite().all()


def test_eta_of_a_flow_replaces_noise_and_keeps_its_variance():
    """If x0 is 0, the latents are noise with the standard deviation sigma, for every eta."""

    def noise_alone(step_input):
        output = step_input.latents / step_input.level.sigma
        return Prediction(output, output, None, step_input.latents)

    sizes, ends = [], []
    for eta in (0.0, 0.5, 1.0):
        generators = make_generators(range(64))
        scheduler = make_scheduler("ddim", FLOW, 5, CPU)
        outputs = list(denoise(noise_alone, scheduler, initial_noise(generators, SHAPE), generators, eta))
        sizes.append(torch.stack([output.latents.std() for output in outputs]))
        ends.append(outputs[2].latents)
    assert torch.allclose(sizes[0][:-1], scheduler.sigmas[1:-1], rtol=0.05)
    assert torch.allclose(sizes[1], sizes[0], rtol=0.05, atol=1e-6)
    assert torch.allclose(sizes[2], sizes[0], rtol=0.05, atol=1e-6)
    correlations = [float((ends[0] * end).mean() / ends[0].square().mean()) for end in ends]
    assert correlations[0] == pytest.approx(1.0)
    assert 0.0 < correlations[2] < 0.5 < correlations[1] < 1.0


def test_loop_is_lazy_and_reports_progress():
    states = []

    def predict(step_input):
        states.append(step_input.progress)
        return linear_denoiser(step_input)

    generators = make_generators([1])
    loop = denoise(predict, make_scheduler("ddim", CONFIG, 4, CPU), initial_noise(generators, SHAPE), generators)
    assert next(loop).timestep > next(loop).timestep
    loop.close()
    assert states == [0.0, 0.25]


def test_gradient_mode_of_the_caller_is_restored():
    loop = iter(run_loop("ddim", [1]))
    next(loop)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["ddim", "euler", "dpm++_2m", "heun", "lcm", "flow_euler", "flow_heun", "flow_lcm"])
def test_denoise_with_graph_back_propagates_to_the_noise(name):
    """The gradient equals the difference quotient along it; `denoise` keeps no graph."""
    config = FLOW if name.startswith("flow") else CONFIG
    start = initial_noise(make_generators([3]), SHAPE)

    def loss(noise):
        outputs = list(denoise_with_graph(curved, make_scheduler(name, config, 3, CPU), noise, make_generators([5])))
        return outputs[-1].latents.square().mean()

    def curved(step_input):
        output = torch.sin(step_input.scale_model_input(step_input.latents))
        return Prediction(output, output, None, step_input.latents)

    noise = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(noise), noise)
    along = gradient / gradient.norm() * 1e-2
    with torch.no_grad():
        slope = (loss(start + along) - loss(start - along)) / 2e-2
    assert float(gradient.norm()) == pytest.approx(float(slope), rel=0.01)
    last = list(denoise(curved, make_scheduler(name, config, 3, CPU), noise, make_generators([5])))[-1]
    assert not last.latents.requires_grad


def test_last_x0_of_ddim_equals_the_final_latents():
    last = run_loop("ddim", [1])[-1]
    assert (last.x0 - last.latents).abs().mean() < 0.1


def at_step(step, rows):
    """Returns a selection of these rows after one step."""
    return lambda state: torch.tensor(rows) if state.index == step else None


@pytest.mark.parametrize(("name", "config"), CASES)
@pytest.mark.parametrize("step", [1, 2])
def test_selected_row_equals_a_run_without_the_others(name, config, step):
    """Includes all that a scheduler stores: histories, samples between two stages, generators."""
    alone = run_loop(name, [5], config=config, eta=0.5)
    selected = run_loop(name, [3, 4, 5], config=config, eta=0.5, select=at_step(step, [2]))
    assert torch.equal(selected[-1].latents, alone[-1].latents)
    assert [state.rows for state in selected[step - 1 : step + 1]] == [(0, 1, 2), (2,)]
    assert torch.equal(selected[step].x0, alone[step].x0)


@pytest.mark.parametrize("name", ["euler_ancestral", "dpm++_2m_sde", "ddim"])
def test_duplicates_get_new_noise_and_the_first_copy_continues_unchanged(name):
    eta = 1.0 if name == "ddim" else 0.0
    alone = run_loop(name, [4], eta=eta)[-1].latents
    runs = [run_loop(name, [3, 4], eta=eta, select=at_step(1, [1, 1, 0, 1]))[-1] for _ in range(2)]
    assert torch.equal(runs[0].latents, runs[1].latents)
    assert runs[0].rows == (1, 1, 0, 1)
    assert torch.equal(runs[0].latents[:1], alone)
    first, second, _, third = runs[0].latents
    assert min(float((a - b).abs().max()) for a, b in ((first, second), (first, third), (second, third))) > 0.1


def test_duplicates_of_duplicates_get_new_noise():
    """The seeds derive from each generator's own, so that no two rows share one."""
    twice = run_loop("euler_ancestral", [3], steps=6, select=lambda m: torch.tensor([0, 0]) if m.index == 0 else None)
    assert not torch.equal(twice[-1].latents[0], twice[-1].latents[1])
    again = {0: [0, 0], 2: [0, 1, 0, 1]}
    outputs = run_loop(
        "euler_ancestral", [3], steps=6, select=lambda m: torch.tensor(again[m.index]) if m.index in again else None
    )[-1].latents
    assert torch.equal(outputs[:2], twice[-1].latents)
    assert all(not torch.equal(outputs[a], outputs[b]) for a in range(4) for b in range(a))


def test_duplicates_of_two_rows_get_different_noise():
    """SA Solver draws no noise in its first step: rows with equal initial noise are equal when duplicated."""
    start, generators = initial_noise(make_generators([3]), SHAPE).repeat(2, 1, 1, 1), make_generators([3, 4])
    scheduler = make_scheduler("sa_solver", CONFIG, 8, CPU)
    outputs = list(denoise(linear_denoiser, scheduler, start, generators, select=at_step(0, [0, 0, 1, 1])))
    assert torch.equal(outputs[0].latents[0], outputs[0].latents[2])
    assert len({float(latents.sum()) for latents in outputs[-1].latents}) == 4


def test_duplicates_stay_equal_with_a_deterministic_scheduler():
    last = run_loop("dpm++_2m", [3, 4], select=at_step(1, [1, 1]))[-1].latents
    assert torch.equal(last[0], last[1])


def test_selection_gets_the_state_of_each_step_and_the_seeds_of_its_rows():
    states: list[StepState] = []

    def select(state):
        states.append(state)
        return torch.tensor([2, 0]) if state.index == 1 else None

    outputs = run_loop("ddim", [3, 4, 5], steps=4, select=select, image_seeds=[30, 40, 50])
    assert [state.image_seeds for state in states] == [(30, 40, 50), (30, 40, 50), (50, 30), (50, 30)]
    assert [(state.index, state.steps, state.progress) for state in states] == [(k, 4, k / 4) for k in range(4)]
    assert torch.equal(states[3].latents, outputs[2].latents)
    assert torch.equal(states[3].x0, outputs[3].x0)
    assert torch.allclose(states[3].alpha ** 2 + torch.tensor(states[3].sigma) ** 2, torch.tensor(1.0))
    assert run_loop("ddim", [3], select=lambda m: states.append(m))
    assert states[-1].image_seeds == (3,)


def test_conditioning_follows_the_selected_rows():
    prompt = {"prompt": torch.tensor([0.1, 0.2, 0.3])[:, None, None, None]}
    negative = {"prompt": torch.zeros(3, 1, 1, 1)}

    def network(latents, timestep, conditioning):
        return torch.tanh(latents * 0.3 + conditioning["prompt"])

    def run(rows, select):
        both = [{"prompt": tensors["prompt"][rows]} for tensors in (prompt, negative)]
        return run_loop(
            "dpm++_2m", [7 + k for k in rows], predict=classifier_free(network, *both, scale=3.0), select=select
        )

    selected = run([0, 1, 2], at_step(1, [2, 0]))[-1].latents
    assert torch.allclose(selected, run([2, 0], None)[-1].latents, atol=1e-6)
    assert not torch.allclose(selected, run([0, 2], None)[-1].latents, atol=1e-2)


def test_step_state_has_the_seeds_of_its_rows():
    inputs = []
    run_loop(
        "ddim", [3, 4], steps=2, predict=lambda step_input: inputs.append(step_input) or linear_denoiser(step_input)
    )
    prediction = linear_denoiser(inputs[0])
    assert step_state(replace(inputs[0], rows=(1,)), prediction, [3, 4]).image_seeds == (4,)
    assert step_state(replace(inputs[0], rows=None), prediction, [3, 4]).image_seeds == (3, 4)


@pytest.mark.parametrize(
    ("name", "config", "what"),
    [
        ("pndm", {**CONFIG, "prediction_type": "sample"}, "sample"),
        ("flow_euler", CONFIG, "epsilon"),
        ("flow_heun", {**CONFIG, "prediction_type": "v_prediction"}, "v_prediction"),
        ("euler_karras", FLOW, "flow"),
        ("pndm", DYNAMIC, "flow"),
    ],
)
def test_scheduler_that_cannot_run_a_model_raises_with_those_that_can(name, config, what):
    line = rf"^Scheduler '{name}' cannot run a model that predicts {what}\. Works: ddim, .*\.$"
    with pytest.raises(SettingsError, match=line) as error:
        make_scheduler(name, config, 5, CPU)
    assert error.value.field == "scheduler"
    for works in error.value.allowed:
        make_scheduler(works, config, 5, CPU, image_seq_len=64)


def flux_timesteps(scheduler, steps, image_seq_len):
    """Returns the timesteps that diffusers' FluxPipeline sets."""
    import numpy as np
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps

    config = scheduler.config
    lengths, shifts = (config.base_image_seq_len, config.max_image_seq_len), (config.base_shift, config.max_shift)
    mu = calculate_shift(image_seq_len, *lengths, *shifts)
    return retrieve_timesteps(scheduler, steps, CPU, sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)[0]


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize(
    "config",
    [DYNAMIC, {**DYNAMIC, "time_shift_type": "linear", "max_image_seq_len": 8192}, {**FLOW, "shift": 1.0}],
    ids=["dev", "linear", "schnell"],
)
def test_timesteps_equal_the_flux_pipeline(config, steps):
    from diffusers import FlowMatchEulerDiscreteScheduler

    expected = flux_timesteps(FlowMatchEulerDiscreteScheduler.from_config(config), steps, 1024)
    even = [1 - k / steps for k in range(steps)]
    for name in ("euler", "flow_euler", "FlowMatchEulerDiscreteScheduler", "lcm"):
        outputs = make_scheduler(name, config, steps, CPU, image_seq_len=1024, sigmas=even)
        assert torch.allclose(outputs.timesteps, expected, rtol=1e-6)


@pytest.mark.parametrize("config", [FLOW, DYNAMIC], ids=["shift", "dynamic"])
def test_timesteps_equal_the_stable_diffusion_3_pipeline(config):
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

    expected = FlowMatchEulerDiscreteScheduler.from_config(config)
    mu = {"mu": calculate_shift(1024)} if config is DYNAMIC else {}
    expected.set_timesteps(28, device=CPU, **mu)
    assert torch.equal(make_scheduler("flow_euler", config, 28, CPU, image_seq_len=1024).timesteps, expected.timesteps)


@pytest.mark.parametrize("name", ["dpm++_2m", "unipc", "dpm++_2s", "flow_heun"])
def test_dpm_family_shifts_flows_like_euler(name):
    """Their first guided level: shift s / (1 + (shift - 1) s) at the middle of two steps, within their rounding."""
    for config in (FLOW, DYNAMIC, {**DYNAMIC, "time_shift_type": "linear"}):
        scheduler = make_scheduler(name, config, 3 if name == "flow_heun" else 2, CPU, image_seq_len=1024)
        euler = make_scheduler("flow_euler", config, 2, CPU, image_seq_len=1024, sigmas=[1.0, 0.5])
        assert float(scheduler.sigmas[1]) == pytest.approx(float(euler.sigmas[1]), abs=0.005)


def test_dynamic_shifting_needs_image_seq_len():
    for name in ("flow_euler", "flow_heun", "dpm++_2m"):
        with pytest.raises(ValueError, match="needs the number of image tokens"):
            make_scheduler(name, DYNAMIC, 5, CPU)
