"""The table of schedulers: names in clipgen and other apps -> a diffusers class and its options. Imports no torch."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clipgen.errors import SettingsError

UNIFORM = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
KARRAS = {**UNIFORM, "use_karras_sigmas": True}


@dataclass(frozen=True)
class SchedulerSpec:
    """One scheduler.

    `name` is clipgen's name, `class_name` the diffusers class. `a1111` and `schedule_type` are the two values in the
    generation parameters of A1111; `aliases` are names in other apps. `options` override the model's scheduler config.
    `stochastic` = it draws noise in each step. `max_steps` is the most that the class accepts. `flow` names the
    scheduler that runs flow models in its place, None if none can: Euler, Heun and LCM have a FlowMatch class each, and
    the DPM family runs flow models itself, but DEIS and SA Solver do so only in part. `takes_sample` = it runs models
    with prediction type `sample`.
    """

    name: str
    class_name: str
    a1111: str
    schedule_type: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    stochastic: bool = False
    max_steps: int = 150
    flow: str | None = None
    takes_sample: bool = True

    @property
    def needs_flow(self) -> bool:
        """Whether it runs flow models only."""
        return self.class_name.startswith("FlowMatch")

    def runs(self, prediction_type: str) -> bool:
        """Tells whether it can run a model of this prediction type (prediction.PREDICTION_TYPES)."""
        if prediction_type == "flow":
            return self.flow is not None
        return not self.needs_flow and (self.takes_sample or prediction_type != "sample")


def _with_karras(spec: SchedulerSpec, aliases: tuple[str, ...]) -> SchedulerSpec:
    """Returns the same scheduler on the noise levels of Karras et al. 2022 (arXiv 2206.00364, equation 5)."""
    return SchedulerSpec(
        name=f"{spec.name}_karras",
        class_name=spec.class_name,
        a1111=spec.a1111,
        schedule_type="Karras",
        options={**spec.options, **KARRAS},
        aliases=aliases,
        stochastic=spec.stochastic,
        max_steps=spec.max_steps,
        takes_sample=spec.takes_sample,
    )


DDIM = SchedulerSpec(
    "ddim",
    "DDIMScheduler",
    "DDIM",
    options={"clip_sample": False, "thresholding": False},
    aliases=("ddim_trailing", "k_ddim"),
    flow="flow_euler",
)
DDPM = SchedulerSpec(
    "ddpm",
    "DDPMScheduler",
    "DDPM",
    options={"clip_sample": False, "thresholding": False},
    stochastic=True,
)
PNDM = SchedulerSpec(
    "pndm",
    "PNDMScheduler",
    "PLMS",
    options={"skip_prk_steps": True},
    aliases=("plms", "k_plms"),
    takes_sample=False,
)
EULER = SchedulerSpec(
    "euler",
    "EulerDiscreteScheduler",
    "Euler",
    options=UNIFORM,
    aliases=("k_euler", "Euler Discrete", "sample_euler"),
    flow="flow_euler",
)
EULER_ANCESTRAL = SchedulerSpec(
    "euler_ancestral",
    "EulerAncestralDiscreteScheduler",
    "Euler a",
    aliases=("euler_a", "k_euler_a", "k_euler_ancestral", "euler_ancestral_discrete", "sample_euler_ancestral"),
    stochastic=True,
    takes_sample=False,
)
HEUN = SchedulerSpec(
    "heun",
    "HeunDiscreteScheduler",
    "Heun",
    options={**UNIFORM, "clip_sample": False},
    aliases=("k_heun", "sample_heun"),
    flow="flow_heun",
)
DPM2 = SchedulerSpec(
    "dpm2",
    "KDPM2DiscreteScheduler",
    "DPM2",
    options=UNIFORM,
    aliases=("dpm_2", "k_dpm_2", "kdpm_2", "sample_dpm_2"),
    takes_sample=False,
)
DPM2_ANCESTRAL = SchedulerSpec(
    "dpm2_ancestral",
    "KDPM2AncestralDiscreteScheduler",
    "DPM2 a",
    options=UNIFORM,
    aliases=("dpm2_a", "dpm_2_a", "dpm_2_ancestral", "k_dpm_2_a", "k_dpm_2_ancestral", "kdpm_2_a"),
    stochastic=True,
    takes_sample=False,
)
DPMPP_2M = SchedulerSpec(
    "dpm++_2m",
    "DPMSolverMultistepScheduler",
    "DPM++ 2M",
    options={**UNIFORM, "algorithm_type": "dpmsolver++", "solver_order": 2, "use_lu_lambdas": False},
    aliases=("dpmpp_2m", "k_dpmpp_2m", "sample_dpmpp_2m", "dpm++2mv2"),
    flow="dpm++_2m",
)
DPMPP_2M_SDE = SchedulerSpec(
    "dpm++_2m_sde",
    "DPMSolverMultistepScheduler",
    "DPM++ 2M SDE",
    options={**UNIFORM, "algorithm_type": "sde-dpmsolver++", "solver_order": 2, "use_lu_lambdas": False},
    aliases=("dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "k_dpmpp_2m_sde", "sample_dpmpp_2m_sde"),
    stochastic=True,
    flow="dpm++_2m_sde",
)
DPMPP_3M = SchedulerSpec(
    "dpm++_3m",
    "DPMSolverMultistepScheduler",
    "DPM++ 3M",
    options={**UNIFORM, "algorithm_type": "dpmsolver++", "solver_order": 3, "use_lu_lambdas": False},
    aliases=("dpmpp_3m",),
    flow="dpm++_3m",
)
DPMPP_3M_SDE = SchedulerSpec(
    "dpm++_3m_sde",
    "DPMSolverMultistepScheduler",
    "DPM++ 3M SDE",
    options={**UNIFORM, "algorithm_type": "sde-dpmsolver++", "solver_order": 3, "use_lu_lambdas": False},
    aliases=("dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "sample_dpmpp_3m_sde"),
    stochastic=True,
    flow="dpm++_3m_sde",
)
DPMPP_2S = SchedulerSpec(
    "dpm++_2s",
    "DPMSolverSinglestepScheduler",
    "DPM++ 2S",
    options={**UNIFORM, "algorithm_type": "dpmsolver++", "solver_order": 2, "lower_order_final": True},
    aliases=("dpmpp_2s", "k_dpmpp_2s"),
    flow="dpm++_2s",
)
UNIPC = SchedulerSpec(
    "unipc",
    "UniPCMultistepScheduler",
    "UniPC",
    options=UNIFORM,
    aliases=("uni_pc", "uni_pc_bh2"),
    flow="unipc",
)
DEIS = SchedulerSpec(
    "deis",
    "DEISMultistepScheduler",
    "DEIS",
    options={**UNIFORM, "algorithm_type": "deis"},
)
SA_SOLVER = SchedulerSpec(
    "sa_solver",
    "SASolverScheduler",
    "SA Solver",
    options={**UNIFORM, "algorithm_type": "data_prediction"},
    stochastic=True,
)
LCM = SchedulerSpec(
    "lcm",
    "LCMScheduler",
    "LCM",
    options={"clip_sample": False, "thresholding": False},
    stochastic=True,
    max_steps=50,
    flow="flow_lcm",
)
FLOW_EULER = SchedulerSpec(
    "flow_euler",
    "FlowMatchEulerDiscreteScheduler",
    "Euler",
    options={**UNIFORM, "invert_sigmas": False, "stochastic_sampling": False},
    flow="flow_euler",
)
FLOW_HEUN = SchedulerSpec("flow_heun", "FlowMatchHeunDiscreteScheduler", "Heun", flow="flow_heun")
FLOW_LCM = SchedulerSpec(
    "flow_lcm",
    "FlowMatchLCMScheduler",
    "LCM",
    options={**UNIFORM, "invert_sigmas": False, "scale_factors": None},
    stochastic=True,
    flow="flow_lcm",
)

SCHEDULERS: dict[str, SchedulerSpec] = {
    spec.name: spec
    for spec in (
        DDIM,
        DDPM,
        PNDM,
        EULER,
        _with_karras(EULER, ("euler_k",)),
        EULER_ANCESTRAL,
        HEUN,
        _with_karras(HEUN, ("heun_k",)),
        DPM2,
        _with_karras(DPM2, ("kdpm_2_k",)),
        DPM2_ANCESTRAL,
        _with_karras(DPM2_ANCESTRAL, ("DPM2 a Karras", "kdpm_2_a_k")),
        DPMPP_2M,
        _with_karras(DPMPP_2M, ("dpmpp_2m_k", "k_dpmpp_2m_karras")),
        DPMPP_2M_SDE,
        _with_karras(DPMPP_2M_SDE, ("dpmpp_2m_sde_k", "dpmpp_2m_sde_gpu_karras")),
        DPMPP_3M,
        _with_karras(DPMPP_3M, ("dpmpp_3m_k",)),
        DPMPP_3M_SDE,
        _with_karras(DPMPP_3M_SDE, ("dpmpp_3m_sde_gpu_karras",)),
        DPMPP_2S,
        _with_karras(DPMPP_2S, ("dpmpp_2s_k",)),
        UNIPC,
        _with_karras(UNIPC, ("unipc_k", "uni_pc_karras", "uni_pc_bh2_karras")),
        DEIS,
        _with_karras(DEIS, ("deis_k",)),
        SA_SOLVER,
        LCM,
        FLOW_EULER,
        FLOW_HEUN,
        FLOW_LCM,
    )
}


def _normalise(name: str) -> str:
    """Returns a name without case, spaces and punctuation, so that `DPM++ 2M` and `dpmpp_2m` are equal."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp")).removesuffix("automatic")


def _all_names(spec: SchedulerSpec) -> tuple[str, ...]:
    if spec.schedule_type is not None:
        return (spec.name, f"{spec.a1111} {spec.schedule_type}", *spec.aliases)
    return (spec.name, spec.a1111, *spec.aliases, spec.class_name, spec.class_name.removesuffix("Scheduler"))


def _specs_by_name() -> dict[str, SchedulerSpec]:
    """Returns the spec of each normalised name; if two specs share a class name the first one keeps it."""
    table: dict[str, SchedulerSpec] = {}
    for spec in SCHEDULERS.values():
        for name in _all_names(spec):
            table.setdefault(_normalise(name), spec)
    return table


_SPECS = _specs_by_name()


def find_scheduler(name: str, schedule_type: str | None = None) -> SchedulerSpec:
    """Returns a scheduler by its name in A1111, ComfyUI, InvokeAI, Fooocus, stable-diffusion.cpp, diffusers or clipgen.

    `schedule_type` is the second value that A1111 and ComfyUI store (`Karras`, `karras`). Types other than Karras say
    how the timesteps are spaced, which clipgen takes from the model's config. Raises SettingsError for an unknown name.
    """
    is_karras = _normalise(schedule_type or "") == "karras"
    spec = _SPECS.get(_normalise(f"{name} karras")) if is_karras else None
    spec = spec or _SPECS.get(_normalise(name))
    if spec is None:
        raise SettingsError(_unknown_name(name), field="scheduler", allowed=tuple(SCHEDULERS))
    return spec


def _unknown_name(name: str) -> str:
    near = difflib.get_close_matches(_normalise(name[:60]), _SPECS, n=1, cutoff=0.75)
    guess = f"Did you mean {_SPECS[near[0]].name}?" if near else f"Schedulers: {', '.join(SCHEDULERS)}."
    return f"Unknown scheduler {name[:60]!r}. {guess}"


def scheduler_for(name: str, prediction_type: str) -> SchedulerSpec:
    """Returns the scheduler that runs a model of this prediction type: `euler` of a flow model is `flow_euler`.

    Raises SettingsError, naming the schedulers that work, if this one cannot run the model.
    """
    spec = find_scheduler(name)
    if not spec.runs(prediction_type):
        names = tuple(other.name for other in SCHEDULERS.values() if other.runs(prediction_type))
        raise SettingsError(
            f"Scheduler '{spec.name}' cannot run a model that predicts {prediction_type}. Works: {', '.join(names)}.",
            field="scheduler",
            allowed=names,
        )
    return SCHEDULERS[spec.flow] if prediction_type == "flow" and spec.flow else spec


def dynamic_mu(config: Mapping[str, Any], image_seq_len: int | None) -> float:
    """Returns mu of dynamic shifting: larger images, of more tokens, need more noise.

    A line through (256, 0.5) and (4096, 1.15), or through the two points in the config; `calculate_shift` in diffusers.
    `image_seq_len` is at least 1. Raises ValueError if it is None.
    """
    if image_seq_len is None:
        raise ValueError("A scheduler config with use_dynamic_shifting needs the number of image tokens.")
    base_len, max_len = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base_shift, max_shift = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (max_shift - base_shift) / (max_len - base_len)
    return float(image_seq_len * slope + (base_shift - slope * base_len))


def flow_shift(config: Mapping[str, Any], mu: float | None) -> float:
    """Returns the factor that shifts the noise levels of a flow model upwards: s -> shift s / (1 + (shift - 1) s).

    Esser et al. 2024 (arXiv 2403.03206, equation 23). `mu` is that of dynamic shifting, None for the config's shift.
    """
    if mu is None:
        return float(config.get("shift", config.get("flow_shift", 1.0)))
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)
