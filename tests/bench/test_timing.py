"""Alternating calls, ratios and their text; no test depends on the speed of the machine."""

from __future__ import annotations

import pytest

from clipgen.bench.timing import Ratio, describe_machine, ratio, time_alternating


def test_calls_alternate_in_both_orders() -> None:
    order: list[str] = []
    timings = time_alternating({name: lambda name=name: order.append(name) for name in "abc"}, 3)
    assert "".join(order) == "abccbaabc"
    assert {name: len(series) for name, series in timings.items()} == {"a": 3, "b": 3, "c": 3}


def test_the_ratio_is_the_median_over_the_pairs() -> None:
    result = ratio([2.0, 9.0, 4.0], [1.0, 3.0, 2.0])
    assert result == Ratio(2.0, 2.0, 3.0)
    assert str(result) == "2.00 (2.00 to 3.00)"
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


def test_the_machine_is_described_in_one_line() -> None:
    assert "threads" in describe_machine()
    assert "\n" not in describe_machine()
