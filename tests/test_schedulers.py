from __future__ import annotations

from typing import Any

import pytest
import tiny

from clipgen.errors import SettingsError
from clipgen.schedulers import SCHEDULERS, SchedulerSpec, find_scheduler

EVERY = pytest.mark.parametrize("spec", SCHEDULERS.values(), ids=list(SCHEDULERS))


@pytest.mark.parametrize(
    "said, name",
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
    ],
)
def test_every_apps_name_is_understood(said: str, name: str) -> None:
    assert find_scheduler(said).name == name


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
    ],
)
def test_the_schedule_type_of_a_picture_counts(sampler: str, schedule_type: str, name: str) -> None:
    assert find_scheduler(sampler, schedule_type).name == name


@EVERY
def test_the_two_values_written_into_a_picture_find_their_scheduler(spec: SchedulerSpec) -> None:
    assert find_scheduler(spec.a1111, spec.schedule_type) is spec
    assert find_scheduler(spec.name) is spec
    assert all(find_scheduler(alias) is spec for alias in spec.aliases)


def test_an_unknown_name_is_one_line_that_names_the_nearest_or_all() -> None:
    with pytest.raises(SettingsError, match=r"^Unknown scheduler 'eulr'\. Did you mean euler\?$") as near:
        find_scheduler("eulr")
    assert near.value.allowed == list(SCHEDULERS)
    with pytest.raises(SettingsError, match=r"^Unknown scheduler 'warp'\. Schedulers: ddim, ddpm, .*, lcm\.$"):
        find_scheduler("warp")
    with pytest.raises(SettingsError, match=r"^Unknown scheduler '\\n\\udc80x*'\. Schedulers: .*\.$"):
        find_scheduler("\n\udc80" + "x" * 9_000)


def denoised(spec: SchedulerSpec, config: dict[str, Any], steps: int, noise_seed: int = 0) -> Any:
    """Runs a whole schedule on a made-up denoiser; only the noise drawn in the steps depends on `noise_seed`."""
    import diffusers
    import torch

    scheduler = getattr(diffusers, spec.class_name).from_config(config, **spec.options)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # Karras levels of a zero-terminal-SNR model round to one timestep twice
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * scheduler.init_noise_sigma
    drawn = {"generator": torch.Generator().manual_seed(noise_seed)} if spec.stochastic else {}
    for timestep in scheduler.timesteps:
        output = torch.tanh(scheduler.scale_model_input(latents, timestep)) * 0.5
        latents = scheduler.step(output, timestep, latents, **drawn).prev_sample
    return latents


@EVERY
@pytest.mark.parametrize("config", [tiny.BETAS, tiny.ZERO_TERMINAL], ids=["sd1", "zero-terminal-snr"])
def test_it_runs_on_both_kinds_of_model_from_one_step_to_the_most(spec: SchedulerSpec, config: dict[str, Any]) -> None:
    import torch

    for steps in (1, 2, 5, spec.max_steps):
        assert torch.isfinite(denoised(spec, config, steps)).all()


@EVERY
def test_it_draws_noise_in_its_steps_if_it_says_so(spec: SchedulerSpec) -> None:
    import torch

    one, other = (denoised(spec, tiny.BETAS, 4, noise_seed) for noise_seed in (1, 2))
    assert torch.equal(one, other) is not spec.stochastic


@EVERY
@pytest.mark.parametrize("solver_type", ["midpoint", "bh2", "logrho"])
def test_the_options_win_over_the_models_own_config(spec: SchedulerSpec, solver_type: str) -> None:
    import diffusers

    foreign = {"algorithm_type": "sde-dpmsolver++", "solver_type": solver_type, "solver_order": 3, "clip_sample": True}
    config = {**tiny.BETAS, **foreign, "use_exponential_sigmas": True}
    scheduler = getattr(diffusers, spec.class_name).from_config(config, **spec.options)
    assert {key: scheduler.config[key] for key in spec.options} == dict(spec.options)
