"""What the shell offers for the values of guidance's flags."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from clipgen.cli import complete
from clipgen.settings.checks import CANDIDATES, DECODERS, GUARDS, METHODS
from clipgen.settings.settings import check_field


@pytest.mark.parametrize(
    "line, offered",
    [
        ("clipgen generate --guidance ", set(METHODS)),
        ("clipgen compare x --guide-decoder ", set(DECODERS)),
        ("clipgen a --guard t", {"two-key"}),
        ("clipgen comp", {"compare", "completion"}),
    ],
)
def test_values_of_flags(line: str, offered: set[str]) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_CLIPGEN_COMPLETE": "complete_bash"}
    code = "from clipgen.cli import main\nmain([])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **words})
    assert set(ran.stdout.split()) == offered


def test_what_is_offered_is_accepted() -> None:
    for name, choices in (("guidance", METHODS), ("guide_decoder", DECODERS), ("guard", GUARDS)):
        offered = [value for value, _ in complete.VALUES[name]()]
        assert offered == list(choices)
        assert [check_field(name, value) for value in offered] == offered
    assert [int(value) for value, _ in complete.VALUES["candidates"]()] == list(CANDIDATES)
