"""What is said about paths: in full to the person at the machine, without folders to everyone who gets the picture."""

from __future__ import annotations

import re
from pathlib import Path

_LOCAL = re.compile(r"[./~\\]|[A-Za-z]:")


def printable_path(path: str | Path) -> str:
    """Returns a path as one printable line for an error message."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


def strip_folders(model: str) -> str:
    """Returns a local path's base name, spelled `./name` so that it stays a path; other model ids come back unchanged.

    The record never tells where things lie on somebody's disk; the SHA-256 beside the name finds the model again.
    """
    if not _LOCAL.match(model):
        return model
    base = re.split(r"[/\\:]", model.rstrip("/\\"))[-1]
    return "./" + ("" if base in (".", "..", "~") else base)
