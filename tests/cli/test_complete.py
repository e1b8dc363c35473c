"""Shell completion of option values."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from clipgen.cli import complete
from clipgen.settings.checks import CANDIDATES, DECODERS, GUARDS, METHODS
from clipgen.settings.settings import check_field


@pytest.mark.parametrize(
    "line, values",
    [
        ("clipgen generate --guidance ", set(METHODS)),
        ("clipgen compare x --guide-decoder ", set(DECODERS)),
        ("clipgen a --guard t", {"two-key"}),
        ("clipgen comp", {"compare", "completion"}),
    ],
)
def test_values_of_options(line: str, values: set[str]) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_CLIPGEN_COMPLETE": "complete_bash"}
    code = "from clipgen.cli import main\nmain([])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **words})
    assert set(ran.stdout.split()) == values


def test_completed_values_are_valid() -> None:
    for name, choices in (("guidance", METHODS), ("guide_decoder", DECODERS), ("guard", GUARDS)):
        values = [value for value, _ in complete.VALUES[name]()]
        assert values == list(choices)
        assert [check_field(name, value) for value in values] == values
    assert [int(value) for value, _ in complete.VALUES["candidates"]()] == list(CANDIDATES)
