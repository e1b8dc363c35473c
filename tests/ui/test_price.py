"""The price of a picture: beside an unguided one by the cost model, in seconds once one was drawn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from clipgen.ui import form, price
from clipgen.ui.shelf import Shelf
from clipgen.ui.workshop import House, Picture, Workshop

from clipgen.settings.checks import SERVED
from clipgen.settings.settings import Settings


@pytest.fixture(scope="module")
def workshop(tiny_v: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(House((str(tiny_v),), SERVED, device="cpu", keep=False), Shelf(tmp_path_factory.mktemp("shelf")))


def told(workshop: Workshop, **values: Any) -> str:
    shown = dict(zip(form.SHOWN, form.write(Settings("a fox").to_dict(), ()), strict=True))
    raw = {**shown, "model": workshop.house.models[0], **values}
    return re.sub("<[^>]*>", "", price.told(workshop, list(raw.values())))


def test_nothing_before_a_model_then_times_then_seconds(workshop: Workshop) -> None:
    assert told(workshop) == ""
    workshop.open()
    picture = next(
        event
        for event in workshop.draw(workshop.settings({"prompt": "a fox", "steps": 2}), "v")
        if isinstance(event, Picture)
    )
    assert re.fullmatch(r"About [\d.]+ s a picture\.", told(workshop, steps="2"))
    assert re.fullmatch(
        r"About [\d.]+ s a picture, \d+\.\d × as long as without CLIP\.", told(workshop, guidance="pick")
    )
    pipe = workshop.pipeline
    assert pipe is not None
    drawn = picture.result.settings
    work = price.work_of(pipe, drawn)
    assert workshop.pace.seconds(pipe, work) == pytest.approx(picture.result.seconds)
    assert workshop.pace.seconds(pipe, 2 * work) == pytest.approx(2 * picture.result.seconds)


def test_what_cannot_be_drawn_has_no_price(workshop: Workshop) -> None:
    assert told(workshop, steps="many") == told(workshop, guidance="optimise", guard="off") == ""


def test_seconds_are_said_once_they_are_known() -> None:
    assert price.line(1.0, None) == ""
    assert "4.3 × as long as without CLIP. Seconds are known after the first one." in price.line(4.3, None)
    assert "hardly longer" in price.line(1.02, 3)
