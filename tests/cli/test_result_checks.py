"""--require, and the diversity of the images of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipgen import Pipeline, Settings

from .conftest import Run


@pytest.fixture
def model(tiny_v: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model with a CLIP."""
    monkeypatch.setenv("CLIPGEN_MODEL", str(tiny_v))
    return str(tiny_v)


FOX = ["a red fox in snow", "-s", "3", "--steps", "2", "--no-history"]


def test_each_required_part_is_checked_and_a_missing_one_is_exit_6(run: Run, model: str) -> None:
    ran = run(*FOX, "--require", "all", "--require", "a blue owl", "--json")
    [image] = [event for event in ran.events if event["type"] == "image"]
    checks = [(check["phrase"], check["kind"], check["subject"]) for check in image["checks"]]
    assert checks == [
        ("a red fox", "thing", "red fox"),
        ("a red fox", "colour", "red"),
        ("snow", "thing", "snow"),
        ("a blue owl", "thing", "blue owl"),
        ("a blue owl", "colour", "blue"),
    ]
    missed = [check["subject"] for check in image["checks"] if not check["holds"]]
    assert missed, "noise cannot be both a red fox and a blue owl"
    assert (ran.code, ran.events[-1]["error"]["field"]) == (6, "require")
    message = f"1 of 1 pictures do not show what --require asks for: {', '.join(missed)}."
    assert ran.events[-1]["error"]["message"] == message
    assert Path(image["path"]).is_file()


def test_python_gives_the_same_checks(run: Run, model: str) -> None:
    [result] = Pipeline.from_pretrained(model).run(Settings(prompt="a red fox in snow", seed=3, steps=2))
    assert [(check.subject, check.kind) for check in result.checks] == [
        ("red fox", "thing"),
        ("red", "colour"),
        ("snow", "thing"),
    ]
    ran = run(*FOX, "--require", "all")
    printed = next(line for line in ran.err.splitlines() if "%" in line and ("✓" in line or "✗" in line))
    assert printed == "  ".join(
        f"{check.subject} {'✓' if check.holds else '✗'} {100 * check.probability:.0f}%" for check in result.checks
    )


def test_diversity_is_printed_from_four_images_up(run: Run, model: str) -> None:
    events = [event for event in run(*FOX, "-n", "4", "--json").events if event["type"] == "diversity"]
    assert len(events) == 1
    assert events[0]["pictures"] == 4
    assert 1 <= events[0]["vendi"] <= 4
    assert "as diverse as" in run(*FOX, "-n", "4").err
    assert "as diverse as" not in run(*FOX, "-n", "3").err
