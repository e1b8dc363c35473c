"""What a caption lacks of a prompt, and what it adds."""

from __future__ import annotations

import pytest

from clipgen.captioning.difference import difference


@pytest.mark.parametrize(
    "prompt, text, missing, hallucinated",
    [
        ("a fox in snow", "a fox in the snow", (), ()),
        ("a bunny", "a rabbit on a beach, watercolour", (), ()),
        ("two foxes in snow", "a fox in a forest", ("two foxes", "in snow"), ("fox", "in a forest")),
        ("a red car and an owl", "a blue car", ("red car", "owl"), ("blue car",)),
        ("a fox left of an owl", "an owl to the left of a fox", ("fox left of owl",), ("owl left of fox",)),
        ("a fluffy fox", "a fox", ("fluffy",), ()),
        ("a misty harbour, boats", "a boat on a river", ("misty", "harbour"), ("river",)),
    ],
)
def test_a_caption_against_a_prompt(
    prompt: str, text: str, missing: tuple[str, ...], hallucinated: tuple[str, ...]
) -> None:
    found = difference(prompt, text)
    assert (found.missing, found.hallucinated) == (missing, hallucinated)
