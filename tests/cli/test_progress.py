"""The parts of the progress bar, the estimate of the time left, and the score line."""

from __future__ import annotations

import pytest

from clipgen.cli.progress import ProgressEstimate, clip_curve, clock, sparkline, speed
from clipgen.clip.score import Score
from clipgen.report.score_text import percent, rating, score_line


@pytest.mark.parametrize(
    "values, expected",
    [
        ([], ""),
        ([5], "▁"),
        ([5, 5, 5], "▁▁▁"),
        ([0, 1], "▁█"),
        ([61, 70, 80, 90, 96], "▁▃▅▇█"),
        ([1, 0], "█▁"),
        (list(range(8)), "▁▂▃▄▅▆▇█"),
        (list(range(100)), "▁▂▃▄▅▆▇█"),
    ],
)
def test_sparkline(values: list[float], expected: str) -> None:
    assert sparkline(values) == expected


def test_a_long_sparkline_keeps_both_ends() -> None:
    line = sparkline([9, *[0] * 50, 5])
    assert (len(line), line[0]) == (8, "█")
    assert line[-1] not in "█▁"


@pytest.mark.parametrize("seconds, expected", [(0, "0:00"), (33.4, "0:33"), (725, "12:05"), (3600, "1:00:00")])
def test_clock(seconds: float, expected: str) -> None:
    assert clock(seconds) == expected


@pytest.mark.parametrize("seconds, expected", [(1.84, "1.8 s/step"), (0.1, "10.0 steps/s"), (0.0, "0.0 s/step")])
def test_speed(seconds: float, expected: str) -> None:
    assert speed(seconds) == expected


def test_clip_curve() -> None:
    assert clip_curve([0.1, 0.2], [61.2, 96.4]) == "CLIP ▁█ 61→96%"
    assert clip_curve([0.214, 0.281], []) == "CLIP ▁█ 0.21→0.28"
    assert clip_curve([], []) == ""


def test_estimate_counts_later_runs() -> None:
    estimate = ProgressEstimate(6)
    estimate.begin(2)
    assert estimate.left(None) is None
    assert estimate.left(10.0) == pytest.approx(10 + 4 * 5, abs=0.1)
    estimate.finish(3.0)
    estimate.finish(5.0)
    estimate.begin(4)
    assert estimate.left(7.0) == pytest.approx(7.0)
    estimate = ProgressEstimate(3)
    estimate.begin(1)
    estimate.finish(4.0)
    estimate.begin(1)
    assert estimate.left(2.0) == pytest.approx(6.0)


@pytest.mark.parametrize(
    "value, expected",
    [(97.4, "97%"), (98.96, "98%"), (99.0, "99.0%"), (99.95, "99.9%"), (100, "100.0%"), (3, "3%")],
)
def test_percent(value: float, expected: str) -> None:
    assert percent(value) == expected


@pytest.mark.parametrize("value, expected", [(0, "weak"), (79.9, "weak"), (80, "fair"), (95, "good"), (99, "strong")])
def test_rating(value: float, expected: str) -> None:
    assert rating(value) == expected


def test_score_line_starts_with_the_percentile() -> None:
    score = Score("storybook/clip", 0.284, 0.71, 97.3, 1000)
    assert score_line(score, verbose=False) == "matches better than 97% of 1,000 other captions, good"
    detail = " (similarity 0.284, CLIP score 0.71, storybook/clip)"
    assert score_line(score, verbose=True) == score_line(score, verbose=False) + detail
    guided = Score("c", 0.284, 0.71, 99.62, 993, self_graded=True)
    assert score_line(guided, verbose=False) == "matches better than 99.6% of 993 other captions, strong, self-graded"
    assert score_line(Score("c", 0.284, 0.71, None, 400), verbose=False) == "CLIP similarity 0.284, uncalibrated"
    assert score_line(None, verbose=True) == ""
