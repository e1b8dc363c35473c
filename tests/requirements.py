"""What some tests need from the machine: Chromium, or the emoji drawings.

Without it these tests are skipped. In continuous integration, where the environment variable CI is "true", they fail
instead, so that a missing package is noticed.
"""

from __future__ import annotations

import os
import shutil

import pytest

from clipgen.errors import ClipgenError
from clipgen.world.art import find_package

IN_CI = os.environ.get("CI") == "true"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome"))), None)


def _has_drawings() -> bool:
    try:
        find_package("flat"), find_package("noto")
    except ClipgenError:
        return False
    return True


def _skip_without(is_installed: bool, name: str) -> pytest.MarkDecorator:
    """Returns a mark that skips a test; in continuous integration there is no skipping."""
    return pytest.mark.skipif(not is_installed and not IN_CI, reason=f"{name} not installed")


needs_chromium = _skip_without(CHROMIUM is not None, "Chromium is")
needs_drawings = _skip_without(_has_drawings(), "the drawings are")
