"""Settings that come as text: an A1111 block, a clipgen record or another app's JSON, pasted into the prompt."""

from __future__ import annotations

import re

from clipgen.errors import ClipgenError, ImageFileError
from clipgen.image_file import Restored, settings_from_text
from clipgen.settings import Settings

from . import stage

MOST = 65_536  # characters
BLOCK = re.compile(r"^Steps: \d{1,6},", re.MULTILINE)


def looks_pasted(text: str) -> bool:
    """Tells whether a text is settings rather than a prompt."""
    return bool(BLOCK.search(text[:MOST])) or (text.lstrip().startswith("{") and '":' in text[:MOST])


def restore(text: str) -> Restored:
    """Returns the settings in a pasted text; raises ImageFileError."""
    if len(text) > MOST:
        raise ImageFileError(
            f"Settings as text must be at most {MOST:,} characters, got {len(text):,}.", field="prompt"
        )
    return settings_from_text(text, name="the pasted text")


def restore_text(text: str) -> tuple[Settings | None, str]:
    """Returns the settings in a pasted text and what is to be said of them, in HTML; None if there are none."""
    try:
        restored = restore(text)
    except ClipgenError as error:
        return None, stage.message(str(error))
    return restored.settings, told(restored, "The form has the settings of a picture by")


def told(restored: Restored, what: str) -> str:
    """Returns where settings came from and what of them was not taken, in HTML."""
    return stage.message(f"{what} {restored.source}.", "done") + stage.notes(restored.warnings)
