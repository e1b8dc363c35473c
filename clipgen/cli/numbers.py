"""Parsers of numeric options and arguments that are no Settings fields."""

from __future__ import annotations

import re
from collections.abc import Callable

from clipgen.errors import SettingsError
from clipgen.settings.checks import printable


def whole(name: str, least: int, most: int | None = None) -> Callable[[str], int]:
    """Returns a parser of whole numbers for typer, which also calls it on defaults; it raises SettingsError."""

    def parse(value: str | int) -> int:
        text = str(value)
        if re.fullmatch(r"[+-]?\d{1,18}", text) and least <= int(text) <= (int(text) if most is None else most):
            return int(text)
        raise _range_error(name, f"{least} or more" if most is None else f"{least} to {most}", text)

    return parse


def percentage(name: str) -> Callable[[str], float]:
    """Returns a parser of numbers from 0 to 100 for typer; it raises SettingsError."""

    def parse(text: str) -> float:
        if re.fullmatch(r"\d{1,3}(\.\d{1,9})?", text) and float(text) <= 100:
            return float(text)
        raise _range_error(name, "0 to 100", text)

    return parse


def _range_error(name: str, rule: str, text: str) -> SettingsError:
    return SettingsError(f"{name} must be {rule}, got '{printable(text)}'", field=name)
