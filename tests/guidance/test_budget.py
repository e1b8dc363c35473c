from __future__ import annotations

from dataclasses import replace

import pytest

from clipgen.guidance.budget import Choice, choice_of, choose, price, resolve_budget
from clipgen.guidance.flops import KL_DECODER, SD15_UNET, TINY_DECODER, Cost, ModelCosts
from clipgen.settings.settings import Settings

LATENTS = 64 * 64
B32 = Cost(8.8e9, 8.9e9)
SD15 = ModelCosts(SD15_UNET.at(LATENTS), KL_DECODER.at(LATENTS), TINY_DECODER.at(LATENTS), B32, "epsilon", False)
SD15_KL = replace(SD15, guide_decoder=SD15.decoder)
FREE = Cost(0.0, 0.0)
DENOISER_ONLY = ModelCosts(Cost(1.0, 1.0), FREE, FREE, FREE, "epsilon", False)  # all other networks are free
BUDGETS = [1 + part / 20 for part in range(160)] + [16.0, 20.0, 64.0]


def settings(**fields: object) -> Settings:
    values = {"prompt": "a fox", "steps": 40, "scheduler": "ddim", "guidance_scale": 7.5, "eta": 0.0}
    values |= {"cutouts": 4, "guidance_every": 1, "guide_decoder": "auto"}
    return Settings.from_dict({**values, **fields})


ONE_STEP = settings(steps=1, guidance_scale=0)


def test_price_without_guidance_is_one() -> None:
    assert price(settings(), SD15) == price(ONE_STEP, SD15) == 1


@pytest.mark.parametrize(("candidates", "expected"), [(2, 1.4), (4, 1.9), (8, 3.4), (16, 4.0)])
def test_price_of_pick_by_number_of_candidates(candidates: int, expected: float) -> None:
    assert round(price(settings(), DENOISER_ONLY, Choice("pick", candidates=candidates)), 1) == expected
    assert price(settings(), SD15, Choice("pick", candidates=candidates)) == pytest.approx(expected, rel=0.03)
    assert price(settings(steps=4), SD15, Choice("pick", candidates=candidates)) == pytest.approx(candidates)


@pytest.mark.parametrize("every", [1, 2, 3, 4])
@pytest.mark.parametrize(("start", "stop"), [(0.1, 0.7), (0.0, 1.0), (0.3, 0.5)])
def test_price_of_clip_follows_interval_and_every(every: int, start: float, stop: float) -> None:
    """1 + f (m - 1) / r: f = share of guided steps, r = every, m = price of a guided step."""
    m = 1 + 0.5  # the decoder adds half of a step with two passes
    filled = settings(steps=120, guidance="clip", guidance_every=every, guidance_start=start, guidance_stop=stop)
    expected = 1 + (stop - start) * (m - 1) / every
    assert price(filled, replace(DENOISER_ONLY, guide_decoder=Cost(0.5, 0.5))) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(
    ("costs", "choice", "expected"),
    [
        (SD15, Choice("clip"), 1.13),
        (SD15, Choice("clip", through_unet=True), 1.46),
        (SD15_KL, Choice("clip"), 1 + 0.6 * 3.2),
        (SD15_KL, Choice("clip", through_unet=True), 1 + 0.6 * 3.8),
        (SD15, Choice("clip+pick", candidates=4), 2.1),
        (SD15, Choice("clip+pick", candidates=8), 3.8),
        (SD15, Choice("clip+pick", candidates=16), 4.4),
        (SD15, Choice("steer", particles=4), 4.04),
    ],
)
def test_prices_of_stable_diffusion_1_5(costs: ModelCosts, choice: Choice, expected: float) -> None:
    assert price(settings(), costs, choice) == pytest.approx(expected, rel=0.035)


def test_price_of_one_iteration_of_optimise() -> None:
    assert price(ONE_STEP, SD15, Choice("optimise", iterations=10)) == pytest.approx(1 + 10 * 0.61, rel=0.01)


def test_relative_price_rises_without_classifier_free_guidance() -> None:
    clip = Choice("clip")
    assert price(settings(guidance_scale=1), SD15, clip) > price(settings(cfg_stop=0.5), SD15, clip)
    assert price(settings(cfg_stop=0.5), SD15, clip) > price(settings(), SD15, clip)
    assert price(settings(), replace(SD15, distilled=True), clip) == price(settings(guidance_scale=1), SD15, clip)
    assert price(settings(clip_guidance_scale=0), SD15, clip) == 1


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (1.0, {"guidance": "off"}),
        (1.12, {"guidance": "off"}),
        (1.2, {"guidance": "clip", "through_unet": False}),
        (1.5, {"guidance": "clip", "through_unet": True}),
        (2.2, {"guidance": "clip+pick", "through_unet": False, "candidates": 4}),
        (3.9, {"guidance": "clip+pick", "through_unet": False, "candidates": 8}),
        (4.4, {"guidance": "clip+pick", "through_unet": False, "candidates": 16}),
        (64, {"guidance": "clip+pick", "through_unet": False, "candidates": 16}),
    ],
)
def test_choice_by_budget_for_stable_diffusion_1_5(budget: float, expected: dict[str, object]) -> None:
    assert choose(settings(), budget, SD15).fields == expected


def test_denoiser_that_cannot_back_propagate_gets_pick() -> None:
    choice = choose(settings(), 1.5, replace(SD15, back_propagates=False))
    assert choice.fields == {"guidance": "pick", "candidates": 2}


def test_stochastic_scheduler_gets_steer_above_the_price_of_pick_16() -> None:
    stochastic = settings(scheduler="euler_ancestral")
    assert choose(stochastic, 4.3, SD15).guidance == "clip+pick"
    assert choose(stochastic, 4.4, SD15).fields == {"guidance": "steer", "particles": 4}
    assert choose(settings(eta=0.5), 8, SD15).fields == {"guidance": "steer", "particles": 7}
    assert choose(stochastic, 64, SD15).particles == 16


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (1.9, {"guidance": "off"}),
        (2, {"guidance": "pick", "candidates": 2}),
        (7.5, {"guidance": "pick", "candidates": 4}),
        (15.9, {"guidance": "pick", "candidates": 8}),
        (16, {"guidance": "optimise", "iterations": 24}),
    ],
)
def test_choice_by_budget_for_a_one_step_model(budget: float, expected: dict[str, object]) -> None:
    assert choose(ONE_STEP, budget, SD15).fields == expected


@pytest.mark.parametrize("fields", [{"steps": 6}, {"guard": "off"}])
def test_optimise_needs_few_steps_and_a_guard(fields: dict[str, object]) -> None:
    assert choose(ONE_STEP.replace(**fields), 64, SD15).fields == {"guidance": "pick", "candidates": 16}


@pytest.mark.parametrize("costs", [SD15, SD15_KL, DENOISER_ONLY, replace(SD15, view=Cost(6e11, 6e11), distilled=True)])
@pytest.mark.parametrize(
    "filled",
    [
        settings(),
        settings(scheduler="euler_ancestral", guidance_every=3, cutouts=16, guard="two-key"),
        settings(steps=8, cfg_stop=0.4),
        settings(steps=6),
        ONE_STEP,
        settings(steps=4, guidance_start=0, guidance_stop=1),
    ],
)
def test_choice_never_exceeds_the_budget(filled: Settings, costs: ModelCosts) -> None:
    prices = [price(filled, costs, choose(filled, budget, costs)) for budget in BUDGETS]
    assert all(factor <= budget + 1e-6 for factor, budget in zip(prices, BUDGETS, strict=True))
    assert prices[0] == 1


@pytest.mark.parametrize("budget", [1, 1.3, 1.5, 2.5, 5, 64])
def test_resolve_budget_is_idempotent(budget: float) -> None:
    once, notes = resolve_budget(settings(candidates=2, through_unet=True, budget=budget), SD15)
    assert resolve_budget(once, SD15) == (once, [])
    assert once.budget is None
    assert [note.code for note in notes] == ["budget"]
    assert price(once, SD15) == price(settings(), SD15, choice_of(once)) <= budget
    again, _ = resolve_budget(settings(candidates=once.candidates, through_unet=once.through_unet, budget=budget), SD15)
    assert once == again


def test_note_names_choice_and_price() -> None:
    def message(**fields: object) -> str:
        _, (note,) = resolve_budget(settings(**fields), SD15)
        return note.message

    assert message(budget=1.2) == (
        "Budget 1.2x: guidance clip, through_unet false, every step from 0.1 to 0.7, price 1.13x."
    )
    assert "clip+pick, through_unet false, candidates 4, every 2 steps from 0.1 to 0.9, price 2.0" in message(
        budget=3, guidance_every=2, guidance_stop=0.9
    )
    assert message(budget=8, scheduler="euler_ancestral") == "Budget 8x: guidance steer, particles 7, price 7.06x."
    assert message(budget=1) == "Budget 1x: guidance off, price 1.00x."


@pytest.mark.parametrize("filled", [settings(), settings(scheduler="euler_ancestral"), settings(steps=6), ONE_STEP])
@pytest.mark.parametrize("guard", ["off", "survival", "two-key"])
def test_choice_is_compatible_with_the_guard(filled: Settings, guard: str) -> None:
    for budget in (1, 2, 4, 8, 64):
        resolved, _ = resolve_budget(filled.replace(guard=guard, budget=budget), SD15)
        assert guard != "two-key" or resolved.guidance in ("off", "clip", "clip+pick")
