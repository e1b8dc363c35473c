"""`clipgen bench quality`: invalid options, and its JSON object."""

from __future__ import annotations

import pytest
from requirements import needs_drawings

from ..conftest import Run


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["--split", "train"], 2, "Unknown split 'train'. Splits: dev, test."),
        (["--count", "3"], 2, "count must be"),
        (["--model", "nothing"], 2, "Unknown model 'nothing'."),
    ],
)
def test_invalid_options(run: Run, words: list[str], code: int, message: str) -> None:
    ran = run("bench", "quality", *words)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err


@needs_drawings
def test_json_is_one_object(run: Run) -> None:
    data = run("bench", "quality", "--count", "8", "--json").data
    assert data["protocol"]["model"] == "storybook/clip"
    assert {"part", "name", "value", "count", "error", "chance", "floor", "ceiling", "reached"} == set(
        data["figures"][0]
    )
