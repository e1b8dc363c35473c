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
HISTORY = {"pndm": 0.5, "deis": 0.03}  # they extrapolate the noise, which a correction bends
X0 = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(8))


def towards_noise(step_input):
    """A network of one multiplication."""
    output = step_input.scale_model_input(step_input.latents) * 0.3
    return Prediction(output, output, None, step_input.latents)


def towards_x0(step_input):
    """A perfect network for two pictures."""
    level, x0 = step_input.level, X0[: len(step_input.latents)]
    noise = (step_input.latents - level.alpha * x0) / level.sigma
    output = noise - x0 if step_input.prediction_type == "flow" else noise
    return Prediction(output, output, None, step_input.latents)


def states(name, seeds, *, config=CONFIG, steps=5, eta=0.0, predict=towards_noise, select=None, **kwargs):
    generators = make_generators(seeds)
    noise = initial_noise(generators, SHAPE)
    return list(denoise(predict, make_scheduler(name, config, steps, CPU), noise, generators, eta, select, **kwargs))


def test_noise_depends_on_the_pictures_seed_alone():
    both = initial_noise(make_generators([3, 4]), SHAPE)
    assert torch.equal(both[1:], initial_noise(make_generators([4]), SHAPE))
    assert torch.equal(both[:1], torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(3)))
    assert initial_noise(make_generators([2**63 - 1]), SHAPE).isfinite().all()


@pytest.mark.parametrize(("name", "config"), CASES)
def test_every_scheduler_runs_each_picture_by_itself(name, config):
    together = states(name, [3, 4], config=config, eta=0.5)
    alone = states(name, [4], config=config, eta=0.5)
    assert [state.index for state in together] == list(range(together[0].steps))
    assert {state.rows for state in together} == {(0, 1)}
    assert together[-1].latents.isfinite().all()
    assert torch.allclose(together[-1].latents[1:], alone[-1].latents, atol=1e-6)
    assert torch.allclose(together[-1].x0[1:], alone[-1].x0, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("config", [CONFIG, tiny.ZERO_TERMINAL, FLOW], ids=["epsilon", "zero-terminal", "flow"])
def test_every_scheduler_runs_few_steps_and_many(name, config):
    """Karras levels from zero terminal SNR round to equal timesteps, on which diffusers' own search goes astray."""
    if not SCHEDULERS[name].runs("flow" if config is FLOW else "epsilon"):
        with pytest.raises(SettingsError, match=rf"Scheduler '{name.replace('+', '.')}' cannot run a model that"):
            make_scheduler(name, config, 5, CPU)
        return
    for steps in (1, 2, 50):
        found = states(name, [3], config=config, steps=steps)
        assert found[-1].latents.isfinite().all()
        assert found[-1].x0.isfinite().all()


@pytest.mark.parametrize(("name", "config"), CASES)
def test_the_loop_draws_from_no_global_generator(name, config):
    torch.manual_seed(0)
    first = states(name, [3], config=config, eta=1.0)
    torch.manual_seed(1)
    assert torch.equal(states(name, [3], config=config, eta=1.0)[-1].latents, first[-1].latents)


@pytest.mark.parametrize(("name", "config"), CASES)
def test_a_correction_of_x0_arrives(name, config):
    """A perfect network with the same correction at each step ends where the corrected x0 is."""
    added = X0.flip(0) * 0.5
    plain, moved = (
        states(name, [3, 4], config=config, steps=8, predict=predict)
        for predict in (towards_x0, lambda step_input: replace(towards_x0(step_input), correction=added))
    )
    found = moved[-1].latents - plain[-1].latents
    part = float((found * added).sum() / added.square().sum())
    assert part == pytest.approx(1.0, abs=HISTORY.get(name, 1e-3))
    assert torch.allclose(found, part * added, atol=1e-3)
    assert torch.allclose(moved[0].x0 - plain[0].x0, added, atol=1e-4)


def test_eta_is_ddims():
    assert not torch.equal(states("ddim", [3], eta=1.0)[-1].latents, states("ddim", [3])[-1].latents)
    assert torch.equal(states("euler", [3], eta=1.0)[-1].latents, states("euler", [3])[-1].latents)


@pytest.mark.parametrize("steps", [2, 5, 10, 20, 50])
def test_all_noise_anew_from_zero_terminal_snr_is_finite(steps):
    """The noise that eta = 1 leaves is the root of 0, or of a rounding below it."""
    last = states("ddim", [3], config=tiny.ZERO_TERMINAL, steps=steps, eta=1.0)[-1].latents
    assert last.isfinite().all()


def test_eta_of_a_flow_draws_noise_anew_and_keeps_its_size():
    """Where x0 is 0 the latents are noise of the level's size, whatever part of it is fresh."""

    def noise_alone(step_input):
        output = step_input.latents / step_input.level.sigma
        return Prediction(output, output, None, step_input.latents)

    sizes, ends = [], []
    for eta in (0.0, 0.5, 1.0):
        generators = make_generators(range(64))
        scheduler = make_scheduler("ddim", FLOW, 5, CPU)
        found = list(denoise(noise_alone, scheduler, initial_noise(generators, SHAPE), generators, eta))
        sizes.append(torch.stack([state.latents.std() for state in found]))
        ends.append(found[2].latents)
    assert torch.allclose(sizes[0][:-1], scheduler.sigmas[1:-1], rtol=0.05)
    assert torch.allclose(sizes[1], sizes[0], rtol=0.05, atol=1e-6)
    assert torch.allclose(sizes[2], sizes[0], rtol=0.05, atol=1e-6)
    kept = [float((ends[0] * end).mean() / ends[0].square().mean()) for end in ends]
    assert kept[0] == pytest.approx(1.0)
    assert 0.0 < kept[2] < 0.5 < kept[1] < 1.0


def test_the_loop_is_lazy_and_says_how_far_it_is():
    seen = []

    def predict(step_input):
        seen.append(step_input.progress)
        return towards_noise(step_input)

    generators = make_generators([1])
    loop = denoise(predict, make_scheduler("ddim", CONFIG, 4, CPU), initial_noise(generators, SHAPE), generators)
    assert next(loop).timestep > next(loop).timestep
    loop.close()
    assert seen == [0.0, 0.25]


def test_gradients_stay_the_callers_own():
    loop = iter(states("ddim", [1]))
    next(loop)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["ddim", "euler", "dpm++_2m", "heun", "lcm", "flow_euler", "flow_heun", "flow_lcm"])
def test_a_loss_reaches_the_noise_where_the_caller_wants_it(name):
    """The gradient is the difference quotient along it; `denoise` itself keeps no graph."""
    config = FLOW if name.startswith("flow") else CONFIG
    start = initial_noise(make_generators([3]), SHAPE)

    def loss(noise):
        found = list(denoise_with_graph(curved, make_scheduler(name, config, 3, CPU), noise, make_generators([5])))
        return found[-1].latents.square().mean()

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


def test_x0_of_the_last_ddim_step_is_where_it_ends():
    last = states("ddim", [1])[-1]
    assert (last.x0 - last.latents).abs().mean() < 0.1


def at_step(step, rows):
    """A selection of those rows after one step."""
    return lambda moment: torch.tensor(rows) if moment.index == step else None


@pytest.mark.parametrize(("name", "config"), CASES)
@pytest.mark.parametrize("step", [1, 2])
def test_a_row_that_lives_on_is_the_picture_that_it_is_alone(name, config, step):
    """Whatever the scheduler remembers goes along: histories, samples between two stages, generators."""
    alone = states(name, [5], config=config, eta=0.5)
    chosen = states(name, [3, 4, 5], config=config, eta=0.5, select=at_step(step, [2]))
    assert torch.equal(chosen[-1].latents, alone[-1].latents)
    assert [state.rows for state in chosen[step - 1 : step + 1]] == [(0, 1, 2), (2,)]
    assert torch.equal(chosen[step].x0, alone[step].x0)


@pytest.mark.parametrize("name", ["euler_ancestral", "dpm++_2m_sde", "ddim"])
def test_copies_of_a_row_part_by_their_own_noise_and_the_first_goes_on_as_it_was(name):
    eta = 1.0 if name == "ddim" else 0.0
    alone = states(name, [4], eta=eta)[-1].latents
    runs = [states(name, [3, 4], eta=eta, select=at_step(1, [1, 1, 0, 1]))[-1] for _ in range(2)]
    assert torch.equal(runs[0].latents, runs[1].latents)
    assert runs[0].rows == (1, 1, 0, 1)
    assert torch.equal(runs[0].latents[:1], alone)
    first, second, _, third = runs[0].latents
    assert min(float((a - b).abs().max()) for a, b in ((first, second), (first, third), (second, third))) > 0.1


def test_copies_of_a_copy_draw_noise_of_their_own():
    """The seeds follow from each generator's own, so no two slots ever share one."""
    twice = states("euler_ancestral", [3], steps=6, select=lambda m: torch.tensor([0, 0]) if m.index == 0 else None)
    assert not torch.equal(twice[-1].latents[0], twice[-1].latents[1])
    again = {0: [0, 0], 2: [0, 1, 0, 1]}
    found = states(
        "euler_ancestral", [3], steps=6, select=lambda m: torch.tensor(again[m.index]) if m.index in again else None
    )[-1].latents
    assert torch.equal(found[:2], twice[-1].latents)
    assert all(not torch.equal(found[a], found[b]) for a in range(4) for b in range(a))


def test_copies_of_two_rows_draw_different_noise():
    """SA Solver draws none at first, so that two rows of one start are one picture when they are copied."""
    start, generators = initial_noise(make_generators([3]), SHAPE).repeat(2, 1, 1, 1), make_generators([3, 4])
    scheduler = make_scheduler("sa_solver", CONFIG, 8, CPU)
    found = list(denoise(towards_noise, scheduler, start, generators, select=at_step(0, [0, 0, 1, 1])))
    assert torch.equal(found[0].latents[0], found[0].latents[2])
    assert len({float(latents.sum()) for latents in found[-1].latents}) == 4


def test_copies_under_a_deterministic_scheduler_stay_one():
    last = states("dpm++_2m", [3, 4], select=at_step(1, [1, 1]))[-1].latents
    assert torch.equal(last[0], last[1])


def test_a_selection_sees_the_moment_of_each_step_and_the_seeds_of_its_rows():
    seen: list[StepState] = []

    def select(moment):
        seen.append(moment)
        return torch.tensor([2, 0]) if moment.index == 1 else None

    found = states("ddim", [3, 4, 5], steps=4, select=select, image_seeds=[30, 40, 50])
    assert [moment.image_seeds for moment in seen] == [(30, 40, 50), (30, 40, 50), (50, 30), (50, 30)]
    assert [(moment.index, moment.steps, moment.progress) for moment in seen] == [(k, 4, k / 4) for k in range(4)]
    assert torch.equal(seen[3].latents, found[2].latents)
    assert torch.equal(seen[3].x0, found[3].x0)
    assert torch.allclose(seen[3].alpha ** 2 + torch.tensor(seen[3].sigma) ** 2, torch.tensor(1.0))
    assert states("ddim", [3], select=lambda m: seen.append(m))
    assert seen[-1].image_seeds == (3,)


def test_what_the_network_is_told_goes_along_with_the_rows():
    told = {"told": torch.tensor([0.1, 0.2, 0.3])[:, None, None, None]}
    nothing = {"told": torch.zeros(3, 1, 1, 1)}

    def network(latents, timestep, conditioning):
        return torch.tanh(latents * 0.3 + conditioning["told"])

    def run(rows, select):
        of = [{"told": each["told"][rows]} for each in (told, nothing)]
        return states(
            "dpm++_2m", [7 + k for k in rows], predict=classifier_free(network, *of, scale=3.0), select=select
        )

    chosen = run([0, 1, 2], at_step(1, [2, 0]))[-1].latents
    assert torch.allclose(chosen, run([2, 0], None)[-1].latents, atol=1e-6)
    assert not torch.allclose(chosen, run([0, 2], None)[-1].latents, atol=1e-2)


def test_a_moment_takes_the_seeds_of_the_rows_at_its_point():
    points = []
    states("ddim", [3, 4], steps=2, predict=lambda step_input: points.append(step_input) or towards_noise(step_input))
    told = towards_noise(points[0])
    assert step_state(replace(points[0], rows=(1,)), told, [3, 4]).image_seeds == (4,)
    assert step_state(replace(points[0], rows=None), told, [3, 4]).image_seeds == (3, 4)


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
def test_a_scheduler_that_cannot_run_a_model_is_refused_with_those_that_can(name, config, what):
    line = rf"^Scheduler '{name}' cannot run a model that predicts {what}\. Works: ddim, .*\.$"
    with pytest.raises(SettingsError, match=line) as refused:
        make_scheduler(name, config, 5, CPU)
    assert refused.value.field == "scheduler"
    for works in refused.value.allowed:
        make_scheduler(works, config, 5, CPU, tokens=64)


def flux_times(scheduler, steps, tokens):
    """Timesteps as diffusers' FluxPipeline sets them."""
    import numpy as np
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps

    known = scheduler.config
    mu = calculate_shift(tokens, known.base_image_seq_len, known.max_image_seq_len, known.base_shift, known.max_shift)
    return retrieve_timesteps(scheduler, steps, CPU, sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)[0]


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize(
    "config",
    [DYNAMIC, {**DYNAMIC, "time_shift_type": "linear", "max_image_seq_len": 8192}, {**FLOW, "shift": 1.0}],
    ids=["dev", "linear", "schnell"],
)
def test_flux_gets_the_timesteps_of_its_pipeline(config, steps):
    from diffusers import FlowMatchEulerDiscreteScheduler

    expected = flux_times(FlowMatchEulerDiscreteScheduler.from_config(config), steps, 1024)
    even = [1 - k / steps for k in range(steps)]
    for name in ("euler", "flow_euler", "FlowMatchEulerDiscreteScheduler", "lcm"):
        found = make_scheduler(name, config, steps, CPU, tokens=1024, sigmas=even)
        assert torch.allclose(found.timesteps, expected, rtol=1e-6)


@pytest.mark.parametrize("config", [FLOW, DYNAMIC], ids=["shift", "dynamic"])
def test_stable_diffusion_3_gets_the_timesteps_of_its_pipeline(config):
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

    expected = FlowMatchEulerDiscreteScheduler.from_config(config)
    mu = {"mu": calculate_shift(1024)} if config is DYNAMIC else {}
    expected.set_timesteps(28, device=CPU, **mu)
    assert torch.equal(make_scheduler("flow_euler", config, 28, CPU, tokens=1024).timesteps, expected.timesteps)


@pytest.mark.parametrize("name", ["dpm++_2m", "unipc", "dpm++_2s", "flow_heun"])
def test_solvers_of_flow_models_shift_as_euler_does(name):
    """Their first guided level: shift s / (1 + (shift - 1) s) at the middle of two steps, within their rounding."""
    for config in (FLOW, DYNAMIC, {**DYNAMIC, "time_shift_type": "linear"}):
        scheduler = make_scheduler(name, config, 3 if name == "flow_heun" else 2, CPU, tokens=1024)
        euler = make_scheduler("flow_euler", config, 2, CPU, tokens=1024, sigmas=[1.0, 0.5])
        assert float(scheduler.sigmas[1]) == pytest.approx(float(euler.sigmas[1]), abs=0.005)


def test_dynamic_shifting_without_the_number_of_tokens_is_a_mistake():
    for name in ("flow_euler", "flow_heun", "dpm++_2m"):
        with pytest.raises(ValueError, match="needs the number of tokens"):
            make_scheduler(name, DYNAMIC, 5, CPU)
