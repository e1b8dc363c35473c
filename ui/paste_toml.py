"""Settings as TOML: a preset, the fields of a clipgen.toml, or a record that somebody wrote down so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from clipgen.errors import SettingsError
from clipgen.image_file import settings_from_text
from clipgen.settings.checks import unknown_name
from clipgen.settings.preset import SECTIONS, parse_preset, parse_toml
from clipgen.settings.settings import DEFAULTS, FIELDS, Settings, coerce

BEGIN = re.compile(
    rf"(?:\s|#[^\n]*\n)*(?:\[(?:settings|style)\]\s*$|(?:{'|'.join((*SECTIONS, *FIELDS))})[ \t]*=)", re.MULTILINE
)
NAME = Path("pasted.toml")  # what errors call it
NO_WORDS = " "  # a style is then alone in the prompt


def looks_toml(text: str) -> bool:
    """Tells whether a text begins as TOML of ours does, with one of our keys."""
    return bool(BEGIN.match(text))


def read(text: str) -> tuple[dict[str, Any], str]:
    """Returns the value of every Settings field, the prompt perhaps empty, and what kind of text it was.

    Raises PresetError, SettingsError or ImageFileError.
    """
    data = text.encode(errors="replace")
    table = parse_toml(data, NAME)
    if str(table.get("schema")).startswith("clipgen/"):
        return settings_from_text(json.dumps(table, default=str), name=NAME.name).settings.to_dict(), "a record"
    if table.keys() & set(SECTIONS):
        preset = parse_preset(data, NAME)
        values = preset.apply({"prompt": NO_WORDS})
        return {**DEFAULTS, **values, "prompt": values["prompt"].strip(), "preset": None}, f"'{preset.title}'"
    return _fields(table), "your text"


def _fields(table: dict[str, Any]) -> dict[str, Any]:
    """Returns every field of a flat file, checked; text stands for what flags take, such as seed = "random"."""
    for key in table:
        if key not in FIELDS:
            raise SettingsError(f"{NAME.name}: {unknown_name('key', key, FIELDS)}", field=key)
    values = {name: coerce(name, value) if isinstance(value, str) else value for name, value in table.items()}
    checked = Settings.from_dict({"prompt": NAME.stem, **values}).to_dict()
    return {**checked, "prompt": checked["prompt"] if "prompt" in table else ""}
