"""x0 from what a network predicts, and corrections of x0 back into it: x_t = alpha x0 + sigma noise is known here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clipgen.errors import ModelError, SettingsError
from clipgen.sampling.schedulers import SCHEDULERS

PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow")
FLOW_MATCHING = frozenset(
    {"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"}
)
VARIANCE_PRESERVING = frozenset({"DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LCMScheduler"})
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
SIGMA_TO_PRESERVING = frozenset(
    {
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "UniPCMultistepScheduler",
        "DEISMultistepScheduler",
        "SASolverScheduler",
    }
)
AFTER_THE_STEP = frozenset({"PNDMScheduler", "LMSDiscreteScheduler"})  # their extrapolation amplifies a jump


@dataclass(frozen=True)
class NoiseLevel:
    """Where a sample x_t stands: x_t = alpha * x0 + sigma * noise, noise of unit variance."""

    alpha: float
    sigma: float

    @property
    def norm(self) -> float:
        """Returns the scale the network divides the sample by: 1 if variance preserving, else sqrt(1 + sigma^2)."""
        return float((self.alpha**2 + self.sigma**2) ** 0.5)


def noise_level(scheduler: Any, timestep: Tensor) -> NoiseLevel:
    """Returns the level of the sample that `scheduler.step` is about to take at `timestep`, second-order stages too.

    A scheduler with a step index that has not begun is put at its first step, as its own `step` would. Raises
    SettingsError for a scheduler class whose parametrisation is not known.
    """
    name = type(scheduler).__name__
    if name in VARIANCE_PRESERVING:
        return _preserving_level(float(scheduler.alphas_cumprod[int(timestep)]))
    if name not in VARIANCE_EXPLODING | SIGMA_TO_PRESERVING | FLOW_MATCHING:
        works = [spec.name for spec in SCHEDULERS.values() if spec.schedule_type is None]
        raise SettingsError(
            f"Scheduler '{name.removesuffix('Scheduler')}' cannot be guided. Works: {', '.join(works)}.",
            field="scheduler",
            allowed=works,
        )
    if scheduler.step_index is None:
        scheduler._init_step_index(timestep)
    sigma = _current_sigma(scheduler)
    if name in VARIANCE_EXPLODING:
        return NoiseLevel(1.0, sigma)
    if name in FLOW_MATCHING or scheduler.config.get("use_flow_sigmas"):
        return NoiseLevel(1 - sigma, sigma)
    alpha = (sigma**2 + 1) ** -0.5
    return NoiseLevel(alpha, sigma * alpha)


def _preserving_level(alpha_cumprod: float) -> NoiseLevel:
    return NoiseLevel(alpha_cumprod**0.5, (1 - alpha_cumprod) ** 0.5)


def _current_sigma(scheduler: Any) -> float:
    """Returns the sample's sigma; between the two stages of DPM2 it lies halfway, in a list of its own."""
    index, name = scheduler.step_index, type(scheduler).__name__
    if not name.startswith("KDPM2") or scheduler.state_in_first_order:
        return float(scheduler.sigmas[index])
    return float(scheduler.sigmas_interpol[index - 1 if name.startswith("KDPM2Ancestral") else index])


def recover_x0(output: Tensor, sample: Tensor, level: NoiseLevel, prediction: str) -> Tensor:
    """Returns the x0 that a network's output implies, in float32.

    `output` and `sample` [B, C, h, w]; `prediction` is one of PREDICTIONS. Salimans and Ho 2022 (arXiv 2202.00512)
    define v; a flow network predicts noise - x0, Lipman et al. 2023 (arXiv 2210.02747). An epsilon prediction at
    alpha = 0 says nothing about x0: schedulers are built so that it never occurs.
    """
    output, sample = output.float(), sample.float()
    alpha, sigma, norm = level.alpha, level.sigma, level.norm
    if prediction == "sample":
        return output
    if prediction == "v_prediction":
        return (alpha / norm**2) * sample - (sigma / norm) * output
    if prediction == "flow":
        return sample - sigma * output
    return (sample - sigma * output) / alpha


def inject(output: Tensor, correction: Tensor, level: NoiseLevel, prediction: str) -> Tensor:
    """Returns the network's output moved so that `recover_x0` gives x0 + correction, in the output's dtype.

    The sample stays: x0 and the noise both move, so the strength does not grow with the number of steps. `output` and
    `correction` [B, C, h, w]. A sample without noise cannot be corrected (nor need it be): sigma > 0.
    """
    factor = {
        "epsilon": -level.alpha / level.sigma,
        "v_prediction": -level.norm / level.sigma,
        "sample": 1.0,
        "flow": -1 / level.sigma,
    }[prediction]
    return (output.float() + factor * correction.float()).to(output.dtype)


def corrects_after_step(scheduler: Any) -> bool:
    """Tells whether this scheduler's corrections go to the next sample and not into the network's output."""
    return type(scheduler).__name__ in AFTER_THE_STEP


def levels_of_step(scheduler: Any, index: int) -> tuple[NoiseLevel, NoiseLevel]:
    """Returns the levels that step `index`, just taken, led from and to; for the schedulers of AFTER_THE_STEP.

    PNDM's second step starts where its first one did: it takes that one again, with a better slope.
    """
    if type(scheduler).__name__ in VARIANCE_EXPLODING:
        before, after = scheduler.sigmas[scheduler.step_index - 1 : scheduler.step_index + 1].tolist()
        return NoiseLevel(1.0, before), NoiseLevel(1.0, after)
    times = scheduler.timesteps.tolist()
    products = [float(scheduler.alphas_cumprod[int(time)]) for time in times] + [float(scheduler.final_alpha_cumprod)]
    return _preserving_level(products[0 if index == 1 else index]), _preserving_level(products[index + 1])


def shift_after_step(correction: Tensor, level: NoiseLevel, following: NoiseLevel) -> Tensor:
    """Returns what the next sample gains when x0 is corrected after the step and not before it.

    This keeps a solver's history clean: (a' - s' a / s) D, with a' and s' of the following level.
    """
    return (following.alpha - following.sigma * level.alpha / level.sigma) * correction


def check_prediction(config: Mapping[str, Any]) -> str:
    """Returns the prediction type of a scheduler's config; raises ModelError if it is unknown or cannot work.

    Flow matching schedulers have no such key; multistep solvers call it flow_prediction.
    """
    usual = "flow" if config.get("_class_name") in FLOW_MATCHING else "epsilon"
    prediction = str(config.get("prediction_type", usual)).replace("flow_prediction", "flow")
    if prediction not in PREDICTIONS:
        raise ModelError(f"Prediction type '{prediction[:60]}' is not known. Works: {', '.join(PREDICTIONS)}.")
    if prediction == "epsilon" and config.get("rescale_betas_zero_snr"):
        raise ModelError("Prediction type 'epsilon' cannot work with rescale_betas_zero_snr: pure noise has no x0.")
    return prediction
