"""The gain benchmark on a tiny model: every variant generates, and the bootstrap interval is that of a mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipgen import Pipeline, load_clip
from clipgen.bench import gain


def test_the_prompts_are_deterministic_and_mostly_different() -> None:
    assert gain.prompts(3) == gain.prompts(5)[:3]
    assert len(set(gain.prompts(20))) > 15


def test_every_variant_is_measured(tiny_v: Path) -> None:
    pipe = Pipeline.from_pretrained(str(tiny_v))
    pipe.defaults |= {"steps": 8}
    rows = gain.measure(pipe, load_clip(str(tiny_v)), ["a fox", "an owl"])
    assert [row.variant for row in rows] == list(gain.VARIANTS)
    assert (rows[0].cost, rows[0].gain, rows[0].low, rows[0].high) == (1, 0, 0, 0)
    assert all(row.low <= row.gain <= row.high for row in rows)
    best = next(row for row in rows if row.variant == gain.BEST)
    assert best.guide >= rows[0].guide
    assert json.loads(json.dumps(gain.report(rows, 2)))["prompts"] == 2


def test_the_interval_contains_the_mean_and_narrows_with_more_values() -> None:
    few, many = [0.0, 1.0] * 10, [0.0, 1.0] * 1000
    for values in (few, many):
        low, high = gain.interval(values)
        assert low < 0.5 < high
    assert gain.interval(many)[1] - gain.interval(many)[0] == pytest.approx(2 * 1.96 * 0.5 / 2000**0.5, rel=0.1)
