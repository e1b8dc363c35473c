"""The similarity chart: lines of the image and of its unguided twin, and their description in words."""

from __future__ import annotations

import re

from clipgen.ui.html.curve import curve_chart
from clipgen.ui.image_info import CurvePoint


def test_the_unguided_curve_is_a_second_line() -> None:
    curve = [CurvePoint(0, 0.1, 10.0), CurvePoint(9, 0.3, 97.4)]
    html = curve_chart(curve, 10, unguided_curve=[CurvePoint(0, 0.1, 10.0), CurvePoint(9, 0.2, 40.0)])
    assert html.count("polyline") == 2
    assert 'class="unguided"' in html
    assert 'aria-label="CLIP similarity, from 0.10 to 0.30, unguided 0.10 to 0.20"' in html
    assert re.search(r"better than 97 ?% of captions · similarity 0\.30", html)


def test_no_points_give_no_chart() -> None:
    assert curve_chart([], 10) == ""


def test_the_chart_shows_the_similarity_and_not_the_percentile() -> None:
    html = curve_chart([CurvePoint(step, 0.2 + 0.02 * step, 100.0) for step in range(10)], 10)
    points = re.findall(r"main\" points=\"([^\"]*)", html)[0]
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] - heights[-1] > 40


def test_a_constant_curve_has_valid_coordinates() -> None:
    assert "nan" not in curve_chart([CurvePoint(0, 0.3, 100.0), CurvePoint(9, 0.3, 100.0)], 10)
