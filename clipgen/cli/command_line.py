"""Writes settings as the command line that draws them."""

from __future__ import annotations

import re
import shlex

from clipgen.cli.layers import DEFAULTS
from clipgen.settings import Settings

LABELS = ("preset", "prompt_template")  # a replay ignores them: the prompt already has its style and its choices


def command_line(settings: Settings) -> str:
    """Returns one shell line, `clipgen 'a fox in snow' --seed 42 --steps 30`, that needs nothing beside it."""
    words = ["clipgen"]
    plain = re.search(r"\s", settings.prompt) and not settings.prompt.startswith("-")
    words += [settings.prompt] if plain else ["-p", settings.prompt]
    for name, value in settings.to_dict().items():
        if name not in LABELS and name != "prompt" and value is not None and value != DEFAULTS[name]:
            words += [f"--{name.replace('_', '-')}", _short(value) if isinstance(value, float) else str(value)]
    return shlex.join(words)


def _short(number: float) -> str:
    """Returns a number without needless digits, and with all it needs."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)
