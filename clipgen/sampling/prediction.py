"""Converts between model outputs and x0, for each prediction type and each scheduler.

A model output m says what x0 is (`recover_x0`). CLIP guidance answers with a correction D of x0, and `inject` returns
the m for which recover_x0 gives x0 + D. So guidance works with every prediction type, and the scheduler never knows.

    x_t = alpha x0 + sigma noise        `noise_level` finds alpha and sigma for each kind of scheduler
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, sin
from typing import Any

from torch import Tensor

from clipgen.errors import ModelError, SettingsError
from clipgen.sampling.schedulers import SCHEDULERS

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow")

# The diffusers schedulers by what they store and on which samples they work.
# alpha^2 + sigma^2 = 1; they store alphas_cumprod.
VARIANCE_PRESERVING = frozenset(
    {
        "DDIMScheduler",
        "DDIMParallelScheduler",
        "DDPMScheduler",
        "DDPMParallelScheduler",
        "PNDMScheduler",
        "LCMScheduler",
        "TCDScheduler",
        "CogVideoXDDIMScheduler",
    }
)
# The same, but alpha and sigma follow from the timestep: an angle, or a position in a cosine schedule.
ANGLE_SCHEDULERS, COSINE_SCHEDULERS = frozenset({"SCMScheduler"}), frozenset({"DDPMWuerstchenScheduler"})
# alpha = 1; they store sigmas, and scale_model_input divides the sample by sqrt(1 + sigma^2).
VARIANCE_EXPLODING = frozenset(
    {
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "LMSDiscreteScheduler",
    }
)
# They store the sigmas of the variance exploding form, but their samples are variance preserving.
PRESERVING_WITH_SIGMAS = frozenset(
    {
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "UniPCMultistepScheduler",
        "DEISMultistepScheduler",
        "SASolverScheduler",
    }
)
# alpha = 1 - sigma; they store sigmas.
FLOW_MATCHING = frozenset(
    {"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"}
)
# Linear multistep methods, which extrapolate from earlier model outputs and would amplify a jump in them.
CORRECTED_AFTER_STEP = frozenset({"PNDMScheduler", "LMSDiscreteScheduler"})


@dataclass(frozen=True)
class NoiseLevel:
    """The signal and noise scale of a sample: x_t = alpha x0 + sigma noise, with noise of unit variance."""

    alpha: float
    sigma: float

    @property
    def norm(self) -> float:
        """sqrt(alpha^2 + sigma^2): 1 if variance preserving; else what scale_model_input divides the sample by."""
        return float((self.alpha**2 + self.sigma**2) ** 0.5)


def noise_level(scheduler: Any, timestep: Tensor) -> NoiseLevel:
    """Returns the noise level of the sample that `scheduler.step` takes next, including second-order stages.

    Initialises the scheduler's step index if it has none, as its own `step` would. Raises SettingsError for a
    scheduler class outside of the sets above.
    """
    name = type(scheduler).__name__
    check_guidable(name)
    if name in VARIANCE_PRESERVING:
        return _variance_preserving_level(float(scheduler.alphas_cumprod[int(timestep)]))
    if name in ANGLE_SCHEDULERS:
        angle = float(timestep.flatten()[0])
        return NoiseLevel(cos(angle), sin(angle))
    if name in COSINE_SCHEDULERS:
        return _variance_preserving_level(float(scheduler._alpha_cumprod(timestep, timestep.device).flatten()[0]))
    if scheduler.step_index is None:
        scheduler._init_step_index(timestep)
    sigma = _current_sigma(scheduler)
    if name in VARIANCE_EXPLODING:
        return NoiseLevel(1.0, sigma)
    if name in FLOW_MATCHING or scheduler.config.get("use_flow_sigmas"):
        return NoiseLevel(1 - sigma, sigma)
    # The stored sigma is noise / signal; scaling both by 1 / sqrt(1 + sigma^2) makes the variance 1.
    alpha = (sigma**2 + 1) ** -0.5
    return NoiseLevel(alpha, sigma * alpha)


def check_guidable(scheduler_class: str) -> None:
    """Raises SettingsError for a scheduler class that `noise_level` does not know."""
    sets = (VARIANCE_PRESERVING, VARIANCE_EXPLODING, PRESERVING_WITH_SIGMAS, FLOW_MATCHING)
    if scheduler_class in frozenset().union(*sets, ANGLE_SCHEDULERS, COSINE_SCHEDULERS):
        return
    supported = [spec.name for spec in SCHEDULERS.values() if spec.schedule_type is None]
    raise SettingsError(
        f"Scheduler '{scheduler_class.removesuffix('Scheduler')}' cannot be guided. Works: {', '.join(supported)}.",
        field="scheduler",
        allowed=supported,
    )


def step_count(scheduler: Any) -> int:
    """Returns the number of steps of a run; the last timestep of some schedulers is the end of the last step."""
    ends = type(scheduler).__name__ in ANGLE_SCHEDULERS | COSINE_SCHEDULERS
    return len(scheduler.timesteps) - ends


def _variance_preserving_level(alpha_cumprod: float) -> NoiseLevel:
    return NoiseLevel(alpha_cumprod**0.5, (1 - alpha_cumprod) ** 0.5)


def _current_sigma(scheduler: Any) -> float:
    """Returns the sigma of the sample; in the second stage of DPM2 it is an interpolated one."""
    index, name = scheduler.step_index, type(scheduler).__name__
    if not name.startswith("KDPM2") or scheduler.state_in_first_order:
        return float(scheduler.sigmas[index])
    return float(scheduler.sigmas_interpol[index - 1 if name.startswith("KDPM2Ancestral") else index])


def recover_x0(model_output: Tensor, sample: Tensor, level: NoiseLevel, prediction_type: str) -> Tensor:
    """Returns the x0 [B, C, h, w] that a model output implies, in float32.

    `model_output` and `sample` (x_t) are [B, C, h, w]; `prediction_type` is one of PREDICTION_TYPES. v is defined by
    Salimans and Ho 2022 (arXiv 2202.00512); a flow network predicts noise - x0 (Lipman et al. 2023, arXiv 2210.02747).
    An epsilon prediction at alpha = 0 does not determine x0; `read_prediction_type` refuses the configs that have one.
    """
    model_output, sample = model_output.float(), sample.float()
    alpha, sigma, norm = level.alpha, level.sigma, level.norm
    if prediction_type == "sample":
        return model_output
    if prediction_type == "v_prediction":
        return (alpha / norm**2) * sample - (sigma / norm) * model_output
    if prediction_type == "flow":
        return sample - sigma * model_output
    return (sample - sigma * model_output) / alpha


def inject(model_output: Tensor, correction: Tensor, level: NoiseLevel, prediction_type: str) -> Tensor:
    """Returns the model output for which `recover_x0` gives x0 + correction, in the dtype of the model output.

    `model_output` and `correction` are [B, C, h, w]; sigma must be above 0. The sample stays as it is, so x0 and the
    noise estimate both move. If only the sample moved, as in DPS, the strength would grow with the number of steps.
    """
    factor = {  # 1 / (d x0 / d model_output), from recover_x0
        "epsilon": -level.alpha / level.sigma,
        "v_prediction": -level.norm / level.sigma,
        "sample": 1.0,
        "flow": -1 / level.sigma,
    }[prediction_type]
    return (model_output.float() + factor * correction.float()).to(model_output.dtype)


def corrects_after_step(scheduler: Any) -> bool:
    """Tells whether this scheduler's corrections are added to the latents after the step (CORRECTED_AFTER_STEP)."""
    return type(scheduler).__name__ in CORRECTED_AFTER_STEP


def step_noise_levels(scheduler: Any, index: int) -> tuple[NoiseLevel, NoiseLevel]:
    """Returns the noise levels before and after step `index`, which was just taken, for CORRECTED_AFTER_STEP.

    PNDM's second step repeats the first one with a better slope, so it starts at the same level.
    """
    if type(scheduler).__name__ in VARIANCE_EXPLODING:
        before, after = scheduler.sigmas[scheduler.step_index - 1 : scheduler.step_index + 1].tolist()
        return NoiseLevel(1.0, before), NoiseLevel(1.0, after)
    alphas = [float(scheduler.alphas_cumprod[int(timestep)]) for timestep in scheduler.timesteps.tolist()]
    alphas.append(float(scheduler.final_alpha_cumprod))
    before, after = alphas[0 if index == 1 else index], alphas[index + 1]
    return _variance_preserving_level(before), _variance_preserving_level(after)


def shift_after_step(correction: Tensor, level: NoiseLevel, next_level: NoiseLevel) -> Tensor:
    """Returns what to add to the latents after a step: (alpha' - sigma' alpha / sigma) D.

    D is the correction of x0, alpha' and sigma' belong to `next_level`. One step of DDIM or Euler with D injected ends
    at the same latents; here the model outputs that a multistep solver stores stay uncorrected.
    """
    return (next_level.alpha - next_level.sigma * level.alpha / level.sigma) * correction


def read_prediction_type(config: Mapping[str, Any]) -> str:
    """Returns the prediction type of a scheduler config; raises ModelError if it is unknown or cannot work.

    FlowMatch schedulers have no such key; the DPM family calls it flow_prediction. TrigFlow is v_prediction with
    alpha = cos(t) and sigma = sin(t).
    """
    default = "flow" if config.get("_class_name") in FLOW_MATCHING else "epsilon"
    prediction_type = str(config.get("prediction_type", default))
    prediction_type = {"flow_prediction": "flow", "trigflow": "v_prediction"}.get(prediction_type, prediction_type)
    if prediction_type not in PREDICTION_TYPES:
        raise ModelError(
            f"Prediction type '{prediction_type[:60]}' is not supported. Works: {', '.join(PREDICTION_TYPES)}."
        )
    if prediction_type == "epsilon" and config.get("rescale_betas_zero_snr"):
        raise ModelError("Prediction type 'epsilon' cannot work with rescale_betas_zero_snr: pure noise has no x0.")
    return prediction_type
