"""The samplers clipgen offers: one table from every app's names to a diffusers class and its options; strings only."""

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
    """One scheduler: its canonical name, the diffusers class behind it, and what other apps call it.

    `options` go to `from_config` above the model's own scheduler config; `a1111` and `schedule_type` are the two
    values of an A1111 block; `stochastic` = it draws noise at each step; `max_steps` is the most that diffusers' class
    accepts. `flow` is the name under which a flow model runs it, None where none can: Euler, Heun and LCM have twins
    of their own for flow models, and the solvers of the DPM family know both kinds (DEIS and SA stop halfway there).
    `takes_sample` = it can run a model that predicts x0 itself.
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
        """Tells whether it runs flow models and no others."""
        return self.class_name.startswith("FlowMatch")

    def runs(self, prediction: str) -> bool:
        """Tells whether it can run a model of that prediction type (prediction.PREDICTION_TYPES)."""
        if prediction == "flow":
            return self.flow is not None
        return not self.needs_flow and (self.takes_sample or prediction != "sample")


def _plus_karras(spec: SchedulerSpec, aliases: tuple[str, ...]) -> SchedulerSpec:
    """Returns the twin of `spec` on Karras et al. 2022's noise levels (arXiv 2206.00364, equation 5)."""
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
        _plus_karras(EULER, ("euler_k",)),
        EULER_ANCESTRAL,
        HEUN,
        _plus_karras(HEUN, ("heun_k",)),
        DPM2,
        _plus_karras(DPM2, ("kdpm_2_k",)),
        DPM2_ANCESTRAL,
        _plus_karras(DPM2_ANCESTRAL, ("DPM2 a Karras", "kdpm_2_a_k")),
        DPMPP_2M,
        _plus_karras(DPMPP_2M, ("dpmpp_2m_k", "k_dpmpp_2m_karras")),
        DPMPP_2M_SDE,
        _plus_karras(DPMPP_2M_SDE, ("dpmpp_2m_sde_k", "dpmpp_2m_sde_gpu_karras")),
        DPMPP_3M,
        _plus_karras(DPMPP_3M, ("dpmpp_3m_k",)),
        DPMPP_3M_SDE,
        _plus_karras(DPMPP_3M_SDE, ("dpmpp_3m_sde_gpu_karras",)),
        DPMPP_2S,
        _plus_karras(DPMPP_2S, ("dpmpp_2s_k",)),
        UNIPC,
        _plus_karras(UNIPC, ("unipc_k", "uni_pc_karras", "uni_pc_bh2_karras")),
        DEIS,
        _plus_karras(DEIS, ("deis_k",)),
        SA_SOLVER,
        LCM,
        FLOW_EULER,
        FLOW_HEUN,
        FLOW_LCM,
    )
}


def _key(name: str) -> str:
    """Returns what is left of a name without case, spaces and punctuation: `DPM++ 2M` and `dpmpp_2m` agree."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp")).removesuffix("automatic")


def _names_of(spec: SchedulerSpec) -> tuple[str, ...]:
    plain = spec.schedule_type is None
    shown = spec.a1111 if plain else f"{spec.a1111} {spec.schedule_type}"
    return (spec.name, shown, *spec.aliases, *([spec.class_name, spec.class_name.removesuffix("Scheduler")] * plain))


def _by_key() -> dict[str, SchedulerSpec]:
    """Returns every known name's key with its spec; of two specs that share a class name the first one keeps it."""
    table: dict[str, SchedulerSpec] = {}
    for spec in SCHEDULERS.values():
        for name in _names_of(spec):
            table.setdefault(_key(name), spec)
    return table


_KEYS = _by_key()


def find_scheduler(name: str, schedule_type: str | None = None) -> SchedulerSpec:
    """Finds a scheduler by any name that A1111, ComfyUI, InvokeAI, Fooocus, stable-diffusion.cpp or diffusers gives it.

    `schedule_type` is the second half that A1111 and ComfyUI store beside it (`Karras`, `karras`); types other than
    Karras are how the model's own config spaces its steps, and are left to it. Raises SettingsError naming the
    schedulers there are.
    """
    karras = _key(schedule_type or "") == "karras"
    spec = _KEYS.get(_key(f"{name} karras")) if karras else None
    spec = spec or _KEYS.get(_key(name))
    if spec is None:
        raise SettingsError(_unknown(name), field="scheduler", allowed=tuple(SCHEDULERS))
    return spec


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(_key(name[:60]), _KEYS, n=1, cutoff=0.75)
    guess = f"Did you mean {_KEYS[near[0]].name}?" if near else f"Schedulers: {', '.join(SCHEDULERS)}."
    return f"Unknown scheduler {name[:60]!r}. {guess}"


def scheduler_for(name: str, prediction: str) -> SchedulerSpec:
    """Returns what runs a model of that prediction type under a name: `euler` is `flow_euler` for a flow model.

    Raises SettingsError for a pair that cannot work, naming those that do.
    """
    spec = find_scheduler(name)
    if not spec.runs(prediction):
        works = tuple(each.name for each in SCHEDULERS.values() if each.runs(prediction))
        raise SettingsError(
            f"Scheduler '{spec.name}' cannot run a model that predicts {prediction}. Works: {', '.join(works)}.",
            field="scheduler",
            allowed=works,
        )
    return SCHEDULERS[spec.flow] if prediction == "flow" and spec.flow else spec


def dynamic_mu(config: Mapping[str, Any], tokens: int | None) -> float:
    """Returns mu, which grows with the places that a flow model's denoiser sees: more of them need more noise.

    A straight line through (256, 0.5) and (4096, 1.15), or the config's own two points; `tokens` is at least 1. Raises
    ValueError if there are none.
    """
    if tokens is None:
        raise ValueError("A scheduler config with use_dynamic_shifting needs the number of tokens.")
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (most - least) / (high - low)
    return float(tokens * slope + (least - slope * low))


def flow_shift(config: Mapping[str, Any], tokens: int | None) -> float:
    """Returns the factor by which a flow model shifts its levels towards noise: s -> shift s / (1 + (shift - 1) s).

    Esser et al. 2024 (arXiv 2403.03206, equation 23). `tokens` counts where the config shifts dynamically.
    """
    if not config.get("use_dynamic_shifting"):
        return float(config.get("shift", config.get("flow_shift", 1.0)))
    mu = dynamic_mu(config, tokens)
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)
