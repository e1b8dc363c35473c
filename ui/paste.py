"""Settings that come as text, pasted into the prompt: an A1111 block, a clipgen record, another app's JSON, or TOML."""

from __future__ import annotations

import re
from typing import Any

from clipgen.errors import ClipgenError, ImageFileError
from clipgen.image_file import RestoredSettings, settings_from_text

from . import paste_toml, stage

MOST = 65_536  # characters
BLOCK = re.compile(r"^Steps: \d{1,6},", re.MULTILINE)
FILLED = "The form has the settings of"


def looks_pasted(text: str | None) -> bool:
    """Tells whether a text is settings rather than a prompt; None is an empty field."""
    text = (text or "")[:MOST]
    return bool(BLOCK.search(text)) or (text.lstrip().startswith("{") and '":' in text) or paste_toml.looks_toml(text)


def restore_text(text: str | None) -> tuple[dict[str, Any] | None, str]:
    """Returns the Settings fields in a pasted text and what is to be said of them, in HTML; None if there are none."""
    text = text or ""
    try:
        if len(text) > MOST:
            raise ImageFileError(f"Settings as text must be at most {MOST:,} characters, got {len(text):,}.")
        if paste_toml.looks_toml(text):
            values, source = paste_toml.read(text)
            return values, stage.message(f"{FILLED} {source}.", "done")
        restored = settings_from_text(text, name="the pasted text")
    except ClipgenError as error:
        return None, stage.message(str(error))
    return restored.settings.to_dict(), told(restored, f"{FILLED} a picture by")


def told(restored: RestoredSettings, what: str) -> str:
    """Returns where settings came from and what of them was not taken, in HTML."""
    return stage.message(f"{what} {restored.source}.", "done") + stage.notes(restored.warnings)
