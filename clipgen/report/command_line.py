"""Writes settings as the command line that draws them."""

from __future__ import annotations

import re
import shlex
from typing import Any

from clipgen.settings.settings import DEFAULTS, Settings

LABELS = ("preset", "prompt_template")  # without effect: the prompt already has its style and its choices


def command_line(settings: Settings) -> str:
    """Returns a complete shell command, for example `clipgen 'a fox in snow' --seed 42 --steps 30`."""
    if settings.vary is not None and not settings.prompt.strip():
        return shlex.join(["clipgen", "vary", settings.vary, *_flags(settings, ("prompt", "vary", *LABELS))])
    words = ["clipgen"]
    positional = re.search(r"\s", settings.prompt) and not settings.prompt.startswith("-")
    words += [settings.prompt] if positional else ["-p", settings.prompt]
    return shlex.join([*words, *_flags(settings, ("prompt", *LABELS))])


def _flags(settings: Settings, without: tuple[str, ...]) -> list[str]:
    """Returns the options for all fields that differ from their defaults."""
    return [
        word
        for name, value in settings.to_dict().items()
        if name not in without and value is not None and value != DEFAULTS[name]
        for word in _flag(name.replace("_", "-"), value)
    ]


def _flag(name: str, value: Any) -> list[str]:
    """Returns the words of one option: a switch has no value, a list repeats the option."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    values = value if isinstance(value, list) else [value]
    return [word for one in values for word in (f"--{name}", _short(one) if isinstance(one, float) else str(one))]


def _short(number: float) -> str:
    """Returns the shorter form of a number that still has its exact value."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)
