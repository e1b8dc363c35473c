"""The difference of a prompt and a caption: what is missing, what is hallucinated."""

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
def test_difference_of_prompt_and_caption(
    prompt: str, text: str, missing: tuple[str, ...], hallucinated: tuple[str, ...]
) -> None:
    result = difference(prompt, text)
    assert (result.missing, result.hallucinated) == (missing, hallucinated)
