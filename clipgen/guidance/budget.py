"""Chooses guidance by its price: the best that a budget buys.

The price is a multiple of the FLOP of the unguided image (flops.py). Images cost the same on every machine, so the same
settings give the same image everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clipgen.guidance.clip_gradient import active_steps
from clipgen.guidance.flops import ModelCosts
from clipgen.guidance.optimise import MAX_STEPS
from clipgen.guidance.pick import HALVING_PROGRESS, MIN_STEPS_TO_HALVE, candidates_per_step, halving_steps
from clipgen.guidance.steer import is_stochastic, resampling_steps
from clipgen.settings.checks import CANDIDATES, LOCAL
from clipgen.settings.settings import Note, Settings

PARTICLES, ITERATIONS = (range(least, most + 1) for least, most in (LOCAL.particles, LOCAL.iterations))
ROUNDING = 1e-9
ANY_PROMPT = "a picture"  # costs do not depend on the prompt
METHOD_FIELDS: dict[str, tuple[str, ...]] = {  # the Settings fields that decide the price of each method
    "off": (),
    "clip": ("through_unet",),
    "pick": ("candidates",),
    "steer": ("particles",),
    "optimise": ("iterations",),
}


@dataclass(frozen=True)
class Choice:
    """One way to guide: the value of `guidance`, and of the Settings fields in METHOD_FIELDS."""

    guidance: str = "off"
    through_unet: bool = False
    candidates: int = 8
    particles: int = 4
    iterations: int = 25

    @property
    def methods(self) -> list[str]:
        """The names that `guidance` joins with +."""
        return self.guidance.split("+")

    @property
    def fields(self) -> dict[str, Any]:
        """`guidance` and the fields that its methods read."""
        names = [name for method in self.methods for name in METHOD_FIELDS[method]]
        return {"guidance": self.guidance, **{name: getattr(self, name) for name in names}}


def choice_of(settings: Settings) -> Choice:
    """Returns the choice that settings have made."""
    values = settings.to_dict()
    return Choice(**{name: values[name] for name in Choice.__dataclass_fields__})


def resolve_budget(settings: Settings, costs: ModelCosts) -> tuple[Settings, list[Note]]:
    """Returns settings with the guidance that their budget buys and without the budget, and a note with the price.

    The fields that the model decides must be filled: `Settings.with_defaults`. Settings without a budget are returned
    as they are, so that resolving twice changes nothing.
    """
    if settings.budget is None:
        return settings, []
    resolved = settings.replace(**choose(settings, settings.budget, costs).fields, budget=None)
    return resolved, [Note("budget", "budget", _summary(resolved, settings.budget, costs))]


def choose(settings: Settings, budget: float, costs: ModelCosts) -> Choice:
    """Returns the most expensive choice within the budget; a tier is open only to who can pay all of the one before."""
    best = Choice()
    for tier in tiers(settings, costs):
        choices = [choice for choice in tier if _guard_allows(settings.guard, choice)]
        prices = {choice: price(settings, costs, choice) for choice in choices}
        affordable = [choice for choice in choices if prices[choice] <= budget + ROUNDING]
        best = max(affordable, key=lambda choice: prices[choice], default=best)
        if len(affordable) < len(choices):
            break
    return best


def _guard_allows(guard: str, choice: Choice) -> bool:
    """Tells whether a choice works with a guard: two-key needs a gradient to veto, optimise needs survival."""
    if guard == "two-key":
        return choice.guidance == "off" or "clip" in choice.methods
    return guard == "survival" or choice.guidance != "optimise"


def tiers(settings: Settings, costs: ModelCosts) -> list[list[Choice]]:
    """Returns the choices for this model, scheduler and number of steps, grouped from the worst tier to the best."""
    if _steps(settings) < MIN_STEPS_TO_HALVE:
        return [[Choice(), *_picks("pick", CANDIDATES)], _optimise_choices(settings, costs)]
    gradients = [Choice("clip"), *([Choice("clip", through_unet=True)] if costs.back_propagates else [])]
    first_tier = [Choice(), *gradients, *_picks("pick", (2,)), *_picks("clip+pick", (4, 8, 16))]
    return [first_tier, _steer_choices(settings, costs)]


def _picks(guidance: str, candidates: tuple[int, ...]) -> list[Choice]:
    return [Choice(guidance, candidates=count) for count in candidates]


def _steer_choices(settings: Settings, costs: ModelCosts) -> list[Choice]:
    """Returns all numbers of particles; nothing for a deterministic scheduler."""
    if not is_stochastic(settings.scheduler or "", costs.prediction_type, settings.eta or 0.0):
        return []
    return [Choice("steer", particles=count) for count in PARTICLES]


def _optimise_choices(settings: Settings, costs: ModelCosts) -> list[Choice]:
    """Returns all numbers of iterations; nothing if gradients cannot go through the whole run."""
    if _steps(settings) > MAX_STEPS or not costs.back_propagates:
        return []
    return [Choice("optimise", iterations=count) for count in ITERATIONS]


def price(settings: Settings, costs: ModelCosts, choice: Choice | None = None) -> float:
    """Returns the FLOP of an image divided by those of the unguided image; `choice` is by default that of the settings.

    Counts denoising, decoding, what guidance decodes and encodes, and one CLIP score of the finished image; not what
    the guard does with the finished image.
    """
    return image_flops(settings, costs, choice or choice_of(settings)) / image_flops(settings, costs, Choice())


def image_flops(settings: Settings, costs: ModelCosts, choice: Choice) -> float:
    """Returns the FLOP of one image."""
    passes = _denoiser_passes(settings, costs)  # per step
    unguided_steps = [costs.denoiser.forward * count for count in passes]
    finish = costs.decoder.forward + costs.view.forward
    if choice.guidance == "optimise":
        iteration = sum(passes) * costs.denoiser.both + costs.guide_decoder.both + costs.view.both
        return sum(unguided_steps) + finish + choice.iterations * iteration
    rows, rewards = _rows_per_step(choice, len(passes)), _reward_count(choice, len(passes))
    corrections = _correction_flops(settings, costs, choice)  # per step
    steps = zip(rows, unguided_steps, corrections, strict=True)
    denoising = sum(count * (unguided + correction) for count, unguided, correction in steps)
    return denoising + rewards * (costs.guide_decoder.forward + costs.view.forward) + rows[-1] * finish


def _denoiser_passes(settings: Settings, costs: ModelCosts) -> list[int]:
    """Returns the passes of the denoiser per step: 2 under classifier-free guidance, else 1."""
    steps, has_two = _steps(settings), not costs.distilled and (settings.guidance_scale or 0.0) > costs.unguided_scale
    return [2 if has_two and settings.cfg_start <= step / steps < settings.cfg_stop else 1 for step in range(steps)]


def _correction_flops(settings: Settings, costs: ModelCosts, choice: Choice) -> list[float]:
    """Returns the FLOP that the gradient of CLIP similarity adds to one row, per step."""
    steps = _steps(settings)
    if "clip" not in choice.methods or settings.clip_guidance_scale == 0:
        return [0.0] * steps
    every = settings.guidance_every or 1
    active = active_steps(steps, settings.guidance_start, settings.guidance_stop, every)
    correction = _gradient_flops(settings, costs, choice)
    return [correction if step in active else 0.0 for step in range(steps)]


def _gradient_flops(settings: Settings, costs: ModelCosts, choice: Choice) -> float:
    """Returns the FLOP of one gradient of CLIP similarity."""
    if costs.latent_head is not None and not choice.through_unet:
        return costs.latent_head.both
    assert settings.cutouts is not None, "Settings.with_defaults fills the cutouts"
    views = settings.cutouts + (settings.guard == "two-key")
    through_unet = costs.denoiser.backward if choice.through_unet else 0.0
    return costs.guide_decoder.both + views * costs.view.both + through_unet


def _rows_per_step(choice: Choice, steps: int) -> list[int]:
    """Returns how many rows run in each step for one image."""
    if "pick" in choice.methods:
        return candidates_per_step(choice.candidates, steps)
    return [choice.particles if "steer" in choice.methods else 1] * steps


def _reward_count(choice: Choice, steps: int) -> int:
    """Returns how many x0 are decoded and scored before the end."""
    if "pick" in choice.methods and steps >= MIN_STEPS_TO_HALVE:
        rows = candidates_per_step(choice.candidates, steps)
        return sum(rows[step] for step in halving_steps(HALVING_PROGRESS[choice.candidates], steps))
    return choice.particles * len(resampling_steps(steps)) if "steer" in choice.methods else 0


def _steps(settings: Settings) -> int:
    assert settings.steps is not None, "Settings.with_defaults fills the steps"
    return settings.steps


def _summary(settings: Settings, budget: float, costs: ModelCosts) -> str:
    """Returns one line about resolved settings: the choice and its price."""
    choice = choice_of(settings)
    values = "".join(f", {name} {str(value).lower()}" for name, value in choice.fields.items() if name != "guidance")
    interval = _interval(settings) if "clip" in choice.methods else ""
    factor = price(settings, costs)
    return f"Budget {budget:g}x: guidance {choice.guidance}{values}{interval}, price {factor:.2f}x."


def _interval(settings: Settings) -> str:
    """Returns the steps that a gradient guides, in words."""
    every = "every step" if settings.guidance_every == 1 else f"every {settings.guidance_every} steps"
    return f", {every} from {settings.guidance_start:g} to {settings.guidance_stop:g}"
