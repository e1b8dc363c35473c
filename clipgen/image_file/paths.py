"""Paths in messages and records: printable in error messages, without folders inside image files."""

from __future__ import annotations

import re
from pathlib import Path

from clipgen.settings.checks import is_weight_file

_LOCAL = re.compile(r"[./~\\]|[A-Za-z]:")


def printable_path(path: str | Path) -> str:
    """Returns a path as one printable line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


def strip_folders(model: str) -> str:
    """Returns the base name of a local path as `./name`, so that it is still a path; other model ids are unchanged.

    Records contain no folders of the user's machine; the SHA-256 in the record identifies the model.
    """
    if not (_LOCAL.match(model) or is_weight_file(model)):
        return model
    base = re.split(r"[/\\:]", model.rstrip("/\\"))[-1]
    return "./" + ("" if base in (".", "..", "~") else base)
