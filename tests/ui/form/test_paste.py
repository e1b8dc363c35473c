"""Settings pasted into the prompt field are recognised and loaded; prompts are not mistaken for settings."""

from __future__ import annotations

from typing import Any

import pytest
from clipgen.ui.form import fields, paste, values

from clipgen.settings.preset import load_preset


def test_an_a1111_block_is_loaded() -> None:
    block = "a fox\nNegative prompt: trees\nSteps: 25, Sampler: Euler a, CFG scale: 6, Seed: 9, Size: 128x128"
    settings, message = paste.parse_settings(block)
    assert settings is not None
    assert (settings["prompt"], settings["seed"], settings["scheduler"]) == ("a fox", 9, "euler_ancestral")
    assert 'class="warnings"' in message


@pytest.mark.parametrize(
    "text", ["a fox", "{red|blue} fox", "Steps to the sea", "poster: big, text: red", "love = fox", "", None]
)
def test_prompts_are_not_settings(text: str | None) -> None:
    assert not paste.looks_pasted(text)


def test_a_text_that_is_too_long_is_refused() -> None:
    settings, message = paste.parse_settings("x" * 65_537)
    assert (settings, "may have 65,536 characters" in message) == (None, True)


@pytest.mark.parametrize(
    "text, expected",
    [
        ('prompt = "an owl"\nsteps = 30\nseed = "random"', {"prompt": "an owl", "steps": 30, "seed": None}),
        ('# mine\nguidance = "clip"', {"prompt": "", "guidance": "clip"}),
        (load_preset("pencil").path.read_text(), {"prompt": "pencil sketch", "preset": None}),
        (load_preset("fast").path.read_text(), {"prompt": "", "steps": 8, "scheduler": "dpm++_2m"}),
        ('schema = "clipgen/1"\nseed = 5\n[settings]\nprompt = "a fox"\nsteps = 9', {"seed": 5, "steps": 9}),
    ],
)
def test_toml_is_loaded(text: str, expected: dict[str, Any]) -> None:
    assert paste.looks_pasted(text)
    settings, message = paste.parse_settings(text)
    assert settings is not None, message
    assert expected.items() <= settings.items()
    form = values.read(values.write(settings, ()))
    assert form.keys() >= set(fields.FIELD_ORDER) - {*fields.WEIGHTS.values()}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("steps = 30\nwdith = 64", "Did you mean"),
        ("steps = many", "not valid TOML"),
        ("steps = 999", "steps must be 1 to 150"),
        ("[settings]\nmodel = '/etc'", "schema must be 1"),
        ("prompt = 'a'\nx = " + "[" * 2000, "pasted.toml"),
    ],
)
def test_toml_with_an_error_gives_a_message(text: str, expected: str) -> None:
    settings, message = paste.parse_settings(text)
    assert (settings, expected in message) == (None, True), message
