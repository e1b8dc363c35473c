"""Timing: turns, pairs and what is said of them; nothing here depends on how fast a machine is."""

from __future__ import annotations

import pytest

from clipgen.bench.timing import Ratio, in_turn, machine, ratio


def test_calls_take_turns_back_and_forth() -> None:
    order: list[str] = []
    taken = in_turn({name: lambda name=name: order.append(name) for name in "abc"}, 3)
    assert "".join(order) == "abccbaabc"
    assert {name: len(clocks) for name, clocks in taken.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(clock.wall >= 0 for clocks in taken.values() for clock in clocks)


def test_a_ratio_is_the_median_over_pairs() -> None:
    found = ratio([2.0, 9.0, 4.0], [1.0, 3.0, 2.0])
    assert found == Ratio(2.0, 2.0, 3.0)
    assert str(found) == "2.00 (2.00 to 3.00)"
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


def test_the_machine_is_one_line() -> None:
    assert "threads" in machine()
    assert "\n" not in machine()
