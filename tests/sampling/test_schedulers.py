from __future__ import annotations

from typing import Any

import pytest
import tiny

from clipgen.errors import SettingsError
from clipgen.sampling.schedulers import SCHEDULERS, SchedulerSpec, dynamic_mu, find_scheduler, flow_shift, scheduler_for

EVERY = pytest.mark.parametrize("spec", SCHEDULERS.values(), ids=list(SCHEDULERS))
DIFFUSION = [spec for spec in SCHEDULERS.values() if not spec.needs_flow]
EVERY_DIFFUSION = pytest.mark.parametrize("spec", DIFFUSION, ids=[spec.name for spec in DIFFUSION])


@pytest.mark.parametrize(
    "alias, name",
    [
        ("Euler a", "euler_ancestral"),
        ("euler_a", "euler_ancestral"),
        ("k_euler_ancestral", "euler_ancestral"),
        ("EulerAncestralDiscreteScheduler", "euler_ancestral"),
        ("Euler", "euler"),
        ("EulerDiscreteScheduler", "euler"),
        ("euler_k", "euler_karras"),
        ("DPM++ 2M", "dpm++_2m"),
        ("dpmpp_2m", "dpm++_2m"),
        ("dpm++2m", "dpm++_2m"),
        ("DPM++ 2M Karras", "dpm++_2m_karras"),
        ("dpmpp_2m_k", "dpm++_2m_karras"),
        ("dpmpp_2m_sde_gpu", "dpm++_2m_sde"),
        ("DPMSolverMultistepScheduler", "dpm++_2m"),
        ("DPM++ 3M SDE Karras", "dpm++_3m_sde_karras"),
        ("DPM2 a Karras", "dpm2_ancestral_karras"),
        ("kdpm_2_a", "dpm2_ancestral"),
        ("PLMS", "pndm"),
        ("uni_pc_bh2", "unipc"),
        ("LCM", "lcm"),
        ("DDIM", "ddim"),
        ("Heun", "heun"),
        ("DPM2", "dpm2"),
        ("deis", "deis"),
        ("ddpm", "ddpm"),
        ("dpmpp_2s_k", "dpm++_2s_karras"),
        ("DPMSolverSinglestepScheduler", "dpm++_2s"),
        ("SA Solver", "sa_solver"),
        ("FlowMatchEulerDiscreteScheduler", "flow_euler"),
        ("flow_match_heun_discrete", "flow_heun"),
    ],
)
def test_find_scheduler_knows_the_names_of_other_apps(alias: str, name: str) -> None:
    assert find_scheduler(alias).name == name


@pytest.mark.parametrize(
    "sampler, schedule_type, name",
    [
        ("DPM++ 2M", "Karras", "dpm++_2m_karras"),
        ("dpmpp_2m_sde_gpu", "karras", "dpm++_2m_sde_karras"),
        ("dpmpp_2m", "normal", "dpm++_2m"),
        ("DPM++ 2M", "Automatic", "dpm++_2m"),
        ("DPM++ 2M Karras", "Karras", "dpm++_2m_karras"),
        ("Euler a", "Karras", "euler_ancestral"),
        ("uni_pc_bh2", "karras", "unipc_karras"),
        ("Euler", "Simple", "euler"),
        ("euler", "simple", "euler"),
    ],
)
def test_schedule_type_selects_karras(sampler: str, schedule_type: str, name: str) -> None:
    assert find_scheduler(sampler, schedule_type).name == name


@EVERY
def test_a1111_values_round_trip(spec: SchedulerSpec) -> None:
    """Other apps use one name for Euler on both kinds of model; for flow models it means the FlowMatch class."""
    result = find_scheduler(spec.a1111, spec.schedule_type)
    assert scheduler_for(result.name, "flow") is spec if spec.needs_flow else result is spec
    assert find_scheduler(spec.name) is spec
    assert all(find_scheduler(alias) is spec for alias in spec.aliases)


def test_unknown_name_raises_with_the_nearest_or_all_names() -> None:
    with pytest.raises(SettingsError, match=r"^Unknown scheduler 'eulr'\. Did you mean euler\?$") as near:
        find_scheduler("eulr")
    assert near.value.allowed == list(SCHEDULERS)
    with pytest.raises(SettingsError, match=r"^Unknown scheduler 'warp'\. Schedulers: ddim, ddpm, .*, flow_lcm\.$"):
        find_scheduler("warp")
    with pytest.raises(SettingsError, match=r"^Unknown scheduler '\\n\\udc80x*'\. Schedulers: .*\.$"):
        find_scheduler("\n\udc80" + "x" * 9_000)


@EVERY
def test_scheduler_for_each_prediction_type(spec: SchedulerSpec) -> None:
    for prediction in ("epsilon", "v_prediction", "sample", "flow"):
        if spec.runs(prediction):
            result = scheduler_for(spec.name, prediction)
            assert result.runs(prediction)
            assert result is spec if prediction != "flow" else result.flow == result.name
            continue
        with pytest.raises(SettingsError, match=f"cannot run a model that predicts {prediction}") as error:
            scheduler_for(spec.name, prediction)
        assert error.value.allowed
        assert all(SCHEDULERS[name].runs(prediction) for name in error.value.allowed)


def test_schedulers_of_flow_models() -> None:
    names = {"Euler": "flow_euler", "ddim": "flow_euler", "heun": "flow_heun", "lcm": "flow_lcm", "unipc": "unipc"}
    assert {name: scheduler_for(name, "flow").name for name in names} == names
    with pytest.raises(SettingsError, match=r"^Scheduler 'flow_euler' cannot run a model that predicts epsilon\. Wor"):
        scheduler_for("flow_euler", "epsilon")
    with pytest.raises(SettingsError, match=r"^Scheduler 'euler_karras' .* predicts flow\. Works: ddim, euler, heun, "):
        scheduler_for("euler_karras", "flow")


def test_dynamic_mu_and_flow_shift() -> None:
    """The two points of Flux at 256 x 256 and 1,024 x 1,024 pixels, and points of a config."""
    assert dynamic_mu({}, 256) == pytest.approx(0.5)
    assert dynamic_mu({}, 4096) == pytest.approx(1.15)
    assert dynamic_mu({"max_image_seq_len": 8192, "max_shift": 0.9}, 8192) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="number of image tokens"):
        dynamic_mu({}, None)
    assert flow_shift({"shift": 3.0}, None) == flow_shift({"flow_shift": 3.0}, None) == 3.0
    assert flow_shift({}, None) == 1.0
    assert flow_shift({"shift": 3.0}, 1.15) == pytest.approx(3.158193)
    assert flow_shift({"shift": 3.0, "time_shift_type": "linear"}, 1.15) == 1.15


def run_scheduler(spec: SchedulerSpec, config: dict[str, Any], steps: int, noise_seed: int = 0) -> Any:
    """Runs all steps with a denoiser of a single tanh; only the noise of the steps depends on `noise_seed`."""
    import diffusers
    import torch

    scheduler = getattr(diffusers, spec.class_name).from_config(config, **spec.options)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # Karras sigmas of a zero-terminal-SNR model can round to two equal timesteps
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * scheduler.init_noise_sigma
    generator_options = {"generator": torch.Generator().manual_seed(noise_seed)} if spec.stochastic else {}
    for timestep in scheduler.timesteps:
        output = torch.tanh(scheduler.scale_model_input(latents, timestep)) * 0.5
        latents = scheduler.step(output, timestep, latents, **generator_options).prev_sample
    return latents


@EVERY_DIFFUSION
@pytest.mark.parametrize("config", [tiny.BETAS, tiny.ZERO_TERMINAL], ids=["sd1", "zero-terminal-snr"])
def test_each_class_runs_one_to_max_steps(spec: SchedulerSpec, config: dict[str, Any]) -> None:
    import torch

    for steps in (1, 2, 5, spec.max_steps):
        assert torch.isfinite(run_scheduler(spec, config, steps)).all()


@EVERY_DIFFUSION
def test_stochastic_flag_is_correct(spec: SchedulerSpec) -> None:
    import torch

    one, other = (run_scheduler(spec, tiny.BETAS, 4, noise_seed) for noise_seed in (1, 2))
    assert torch.equal(one, other) is not spec.stochastic


@EVERY_DIFFUSION
@pytest.mark.parametrize("solver_type", ["midpoint", "bh2", "logrho"])
def test_options_override_the_model_config(spec: SchedulerSpec, solver_type: str) -> None:
    import diffusers

    foreign = {"algorithm_type": "sde-dpmsolver++", "solver_type": solver_type, "solver_order": 3, "clip_sample": True}
    config = {**tiny.BETAS, **foreign, "use_exponential_sigmas": True}
    scheduler = getattr(diffusers, spec.class_name).from_config(config, **spec.options)
    assert {key: scheduler.config[key] for key in spec.options} == dict(spec.options)
