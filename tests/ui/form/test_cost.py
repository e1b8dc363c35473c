"""The cost of an image: compared with no guidance, and in seconds once an image has been generated."""

from __future__ import annotations

import re
from typing import Any

import pytest
from clipgen.ui.form import cost
from clipgen.ui.job_events import FinishedImage
from clipgen.ui.speed import flops_of
from clipgen.ui.worker import Worker

from ..conftest import raw_form


def cost_text(worker: Worker, **changes: Any) -> str:
    return re.sub("<[^>]*>", "", cost.cost_line(worker, raw_form(worker.config.models[0], **changes)))


def test_the_cost_is_empty_without_a_model_then_in_seconds_and_relative(worker: Worker) -> None:
    assert cost_text(worker) == ""
    job = worker.generate(worker.build_settings({"prompt": "a fox", "steps": 2}), "session")
    image = next(event for event in job if isinstance(event, FinishedImage))
    assert re.fullmatch(r"About [\d.]+ s per picture\.", cost_text(worker, steps="2"))
    relative = r"About [\d.]+ s per picture, \d+\.\d × as long as without CLIP guidance\."
    assert re.fullmatch(relative, cost_text(worker, guidance="pick"))
    pipe, seconds = worker.pipeline, image.result.seconds
    assert pipe is not None
    flops = flops_of(pipe, image.result.settings)
    assert worker.speed.seconds(pipe, flops) == pytest.approx(seconds)
    assert worker.speed.seconds(pipe, 2 * flops) == pytest.approx(2 * seconds)


def test_invalid_settings_have_no_cost(worker: Worker) -> None:
    assert cost_text(worker, steps="many") == cost_text(worker, guidance="optimise", guard="off") == ""


def test_the_cost_line() -> None:
    assert cost.format_cost(1.0, None) == ""
    expected = "4.3 × as long as without CLIP guidance. Seconds are known after the first one."
    assert expected in cost.format_cost(4.3, None)
    assert "hardly longer" in cost.format_cost(1.02, 3)
