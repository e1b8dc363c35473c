"""Budget first: of all that guidance can do, the dearest that a budget pays for. Prices come from FLOP alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clipgen.guidance.flops import ModelCosts
from clipgen.guidance.optimise import MOST_STEPS
from clipgen.guidance.pick import FEWEST_STEPS, HALVED_AT, halving_steps, rows_alive
from clipgen.guidance.steer import draws_noise, weighing_steps
from clipgen.settings.checks import CANDIDATES, LOCAL
from clipgen.settings.settings import Note, Settings

PARTICLES, ITERATIONS = (range(least, most + 1) for least, most in (LOCAL.particles, LOCAL.iterations))
ROUNDING = 1e-9
READS: dict[str, tuple[str, ...]] = {  # the fields that say how much of a method there is
    "off": (),
    "clip": ("through_unet",),
    "pick": ("candidates",),
    "steer": ("particles",),
    "optimise": ("iterations",),
}


@dataclass(frozen=True)
class Choice:
    """One way to guide: the Settings fields that decide what it costs, for each method those of READS."""

    guidance: str = "off"
    through_unet: bool = False
    candidates: int = 8
    particles: int = 4
    iterations: int = 25

    @property
    def methods(self) -> list[str]:
        """The names that guidance joins."""
        return self.guidance.split("+")

    @property
    def fields(self) -> dict[str, Any]:
        """Guidance and those fields that its methods read."""
        known = vars(self)
        return {"guidance": self.guidance, **{name: known[name] for each in self.methods for name in READS[each]}}


def choice_of(settings: Settings) -> Choice:
    """Returns the way that settings guide."""
    known = settings.to_dict()
    return Choice(**{name: known[name] for name in Choice.__dataclass_fields__ if name in known})


def resolve(settings: Settings, facts: ModelCosts) -> tuple[Settings, list[Note]]:
    """Returns settings with what their budget buys in its place, and a note of it; without a budget they stay.

    What the model leaves open must be filled: `Settings.with_defaults`. All but budget and the fields of a Choice
    stays, so that resolving twice changes nothing.
    """
    if settings.budget is None:
        return settings, []
    chosen = settings.replace(**choose(settings, settings.budget, facts).fields, budget=None)
    return chosen, [Note("budget", "budget", told(chosen, settings.budget, facts))]


def choose(settings: Settings, budget: float, facts: ModelCosts) -> Choice:
    """Returns the dearest choice that fits; a better tier is asked once a budget pays for all of the one below."""
    best = Choice()
    for tier in tiers(settings, facts):
        known = [choice for choice in tier if _guarded(choice, settings.guard)]
        prices = {choice: price(settings, facts, choice) for choice in known}
        fits = [choice for choice in known if prices[choice] <= budget + ROUNDING]
        best = max(fits, key=lambda choice: prices[choice], default=best)
        if len(fits) < len(known):
            break
    return best


def _guarded(choice: Choice, guard: str) -> bool:
    """Tells whether a guard goes with a choice: a second key needs a gradient to veto, an ascent needs survival."""
    if guard == "two-key":
        return choice.guidance == "off" or "clip" in choice.methods
    return guard == "survival" or choice.guidance != "optimise"


def tiers(settings: Settings, facts: ModelCosts) -> list[list[Choice]]:
    """Returns what a budget may choose from, for this model, scheduler and number of steps, the best tier last."""
    if _steps(settings) < FEWEST_STEPS:
        return [[Choice(), *_picks("pick", CANDIDATES)], _optimising(settings, facts)]
    gradients = [Choice("clip"), *([Choice("clip", through_unet=True)] if facts.back_propagates else [])]
    return [[Choice(), *gradients, *_picks("pick", (2,)), *_picks("clip+pick", (4, 8, 16))], _steering(settings, facts)]


def _picks(guidance: str, candidates: tuple[int, ...]) -> list[Choice]:
    return [Choice(guidance, candidates=count) for count in candidates]


def _steering(settings: Settings, facts: ModelCosts) -> list[Choice]:
    """Returns the crowds there may be, none with a scheduler that draws no noise."""
    if not draws_noise(settings.scheduler or "", facts.prediction, settings.eta or 0.0):
        return []
    return [Choice("steer", particles=count) for count in PARTICLES]


def _optimising(settings: Settings, facts: ModelCosts) -> list[Choice]:
    """Returns the ascents there may be, none where gradients cannot go through the run."""
    if _steps(settings) > MOST_STEPS or not facts.back_propagates:
        return []
    return [Choice("optimise", iterations=count) for count in ITERATIONS]


def price(settings: Settings, facts: ModelCosts, choice: Choice | None = None) -> float:
    """Returns what a picture takes by a choice, that of the settings themselves by default; unguided = 1.

    Counted are denoising, decoding, what guidance looks at and one look of CLIP at the finished picture. What the
    guard does to the finished picture is not.
    """
    return work(settings, facts, choice or choice_of(settings)) / work(settings, facts, Choice())


def work(settings: Settings, facts: ModelCosts, choice: Choice) -> float:
    """Returns the FLOP of one picture."""
    passes = _passes(settings, facts)
    plain = [facts.denoiser.forward * count for count in passes]
    finish = facts.decoder.forward + facts.view.forward
    if choice.guidance == "optimise":
        drawn = sum(passes) * facts.denoiser.both + facts.guide.both + facts.view.both
        return sum(plain) + finish + choice.iterations * drawn
    rows, looks = _rows(choice, len(passes)), _looks(choice, len(passes))
    extra = _correction(settings, facts, choice)
    guided = [extra if active else 0.0 for active in _active(settings)]
    denoising = sum(count * (one + more) for count, one, more in zip(rows, plain, guided, strict=True))
    return denoising + looks * (facts.guide.forward + facts.view.forward) + rows[-1] * finish


def _passes(settings: Settings, facts: ModelCosts) -> list[int]:
    """Returns how often a picture goes through the denoiser at each step."""
    steps, doubles = _steps(settings), not facts.distilled and (settings.guidance_scale or 0.0) > 1.0
    return [2 if doubles and settings.cfg_start <= step / steps < settings.cfg_stop else 1 for step in range(steps)]


def _active(settings: Settings) -> list[bool]:
    """Tells of each step whether a gradient guides it."""
    steps, start, stop = _steps(settings), settings.guidance_start, settings.guidance_stop
    inside = [step for step in range(steps) if start <= step / steps < stop]
    guided = set(inside[:: settings.guidance_every or 1])
    return [settings.clip_guidance_scale > 0 and step in guided for step in range(steps)]


def _correction(settings: Settings, facts: ModelCosts, choice: Choice) -> float:
    """Returns the FLOP that a gradient adds to one step of one picture."""
    if "clip" not in choice.methods:
        return 0.0
    if facts.head is not None and not choice.through_unet:
        return facts.head.both
    assert settings.cutouts is not None, "with_defaults fills them"
    views = settings.cutouts + (settings.guard == "two-key")
    through = facts.denoiser.backward if choice.through_unet else 0.0
    return facts.guide.both + views * facts.view.both + through


def _rows(choice: Choice, steps: int) -> list[int]:
    """Returns how many latents take each step for one picture."""
    if "pick" in choice.methods:
        return rows_alive(choice.candidates, steps)
    return [choice.particles if "steer" in choice.methods else 1] * steps


def _looks(choice: Choice, steps: int) -> int:
    """Returns how often a reward is asked about an x0 on the way."""
    if "pick" in choice.methods and steps >= FEWEST_STEPS:
        rows = rows_alive(choice.candidates, steps)
        return sum(rows[step] for step in halving_steps(HALVED_AT[choice.candidates], steps))
    return choice.particles * len(weighing_steps(steps)) if "steer" in choice.methods else 0


def _steps(settings: Settings) -> int:
    assert settings.steps is not None, "with_defaults fills the steps"
    return settings.steps


def told(settings: Settings, budget: float, facts: ModelCosts) -> str:
    """Returns one line about resolved settings: what was chosen for a budget, and what it costs."""
    chosen = choice_of(settings)
    how = "".join(f", {name} {str(value).lower()}" for name, value in chosen.fields.items() if name != "guidance")
    cost = price(settings, facts)
    return f"Budget {budget:g}x: guidance {chosen.guidance}{how}{_when(settings, chosen)}, price {cost:.2f}x."


def _when(settings: Settings, choice: Choice) -> str:
    """Returns at which steps a gradient guides, in words."""
    if "clip" not in choice.methods:
        return ""
    every = "every step" if settings.guidance_every == 1 else f"every {settings.guidance_every} steps"
    return f", {every} from {settings.guidance_start:g} to {settings.guidance_stop:g}"
