"""Settings pasted into the prompt field: an A1111 block, the JSON of clipgen or another app, or TOML."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from clipgen.errors import ClipgenError, ImageFileError, SettingsError
from clipgen.image_file import RestoredSettings, settings_from_text
from clipgen.settings.checks import unknown_name
from clipgen.settings.preset import SECTIONS, parse_preset, parse_toml
from clipgen.settings.settings import DEFAULTS, FIELDS, Settings, coerce

from ..html import output_panel

MAX_CHARACTERS = 65_536
A1111_BLOCK = re.compile(r"^Steps: \d{1,6},", re.MULTILINE)
# TOML begins, after comments, with a section of a preset or with a key that a preset or a clipgen.toml may have.
TOML_START = re.compile(
    rf"(?:\s|#[^\n]*\n)*(?:\[(?:settings|style)\]\s*$|(?:{'|'.join((*SECTIONS, *FIELDS))})[ \t]*=)", re.MULTILINE
)
TOML_NAME = Path("pasted.toml")  # the file name in error messages
NO_PROMPT = " "  # a preset's style is then the whole prompt


def looks_pasted(text: str | None) -> bool:
    """Returns whether a text is settings rather than a prompt; None is an empty field."""
    text = (text or "")[:MAX_CHARACTERS]
    return bool(A1111_BLOCK.search(text) or TOML_START.match(text)) or (text.lstrip().startswith("{") and '":' in text)


def parse_settings(text: str | None) -> tuple[dict[str, Any] | None, str]:
    """Returns all Settings fields of a pasted text, None if it cannot be read, and a message as HTML."""
    text = text or ""
    try:
        if len(text) > MAX_CHARACTERS:
            raise ImageFileError(f"Pasted settings may have {MAX_CHARACTERS:,} characters, got {len(text):,}.")
        if TOML_START.match(text):
            values, source = parse_toml_settings(text)
            return values, output_panel.message(f"Loaded the settings of {source}.", "done")
        restored = settings_from_text(text, name="the pasted text")
    except ClipgenError as error:
        return None, output_panel.message(str(error))
    return restored.settings.to_dict(), restored_message(restored, "Loaded the settings of a picture made with")


def restored_message(restored: RestoredSettings, text: str) -> str:
    """Returns as HTML which app settings come from, and warnings about those that were not taken over."""
    return output_panel.message(f"{text} {restored.source}.", "done") + output_panel.warnings(restored.warnings)


def parse_toml_settings(text: str) -> tuple[dict[str, Any], str]:
    """Returns all Settings fields of a TOML text and a name for it; the prompt may be empty.

    The text may be a preset, the fields of a clipgen.toml, or the record that clipgen stores in an image. Raises
    PresetError, SettingsError or ImageFileError.
    """
    data = text.encode(errors="replace")
    table = parse_toml(data, TOML_NAME)
    if str(table.get("schema")).startswith("clipgen/"):
        restored = settings_from_text(json.dumps(table, default=str), name=TOML_NAME.name)
        return restored.settings.to_dict(), "a clipgen record"
    if table.keys() & set(SECTIONS):
        preset = parse_preset(data, TOML_NAME)
        values = preset.apply({"prompt": NO_PROMPT})
        return {**DEFAULTS, **values, "prompt": values["prompt"].strip(), "preset": None}, f"'{preset.title}'"
    return _parse_fields(table), "your text"


def _parse_fields(table: dict[str, Any]) -> dict[str, Any]:
    """Returns all Settings fields of a clipgen.toml, checked; text is parsed as a flag is, such as seed = "random"."""
    for key in table:
        if key not in FIELDS:
            raise SettingsError(f"{TOML_NAME.name}: {unknown_name('key', key, FIELDS)}", field=key)
    values = {name: coerce(name, value) if isinstance(value, str) else value for name, value in table.items()}
    settings = Settings.from_dict({"prompt": TOML_NAME.stem, **values}).to_dict()
    return {**settings, "prompt": settings["prompt"] if "prompt" in table else ""}
