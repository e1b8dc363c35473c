"""The terminal: one command per file, everything heavy imported inside the command."""

from __future__ import annotations

from clipgen.cli.app import main as main
