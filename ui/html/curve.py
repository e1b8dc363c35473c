"""The CLIP similarity of an image to its prompt, step by step, as a small SVG line chart.

The chart shows the cosine similarity, not the percentile: that is close to 100 long before the last step.
"""

from __future__ import annotations

from dataclasses import dataclass

from clipgen.report.score_text import percent

from ..image_info import Curve, CurvePoint

WIDTH, HEIGHT, PADDING = 320, 84, 8
MIN_RANGE = 0.1  # of the similarity axis: smaller changes look as small as they are
MARGIN = 0.1  # part of the axis that remains free above and below the lines


def curve_chart(curve: Curve, steps: int, unguided_curve: Curve = ()) -> str:
    """Returns the chart with its heading, "" if there is no point yet; the unguided curve is a dashed line.

    Args:
        curve: The points so far.
        steps: The number of steps of the image: the length of the x axis.
        unguided_curve: The points of the unguided image of a comparison.
    """
    if not curve and not unguided_curve:
        return ""
    axes = Axes.fit([*curve, *unguided_curve], steps)
    shapes = [
        f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in (PADDING, HEIGHT / 2, HEIGHT - PADDING)
    ]
    shapes += [axes.line(unguided_curve, "unguided"), axes.area(curve), axes.line(curve, "main")]
    if curve:  # a path of length 0.01 with round ends is a dot that is not stretched with the chart
        shapes.append(f'<path class="last" d="M{axes.x(curve[-1]):.1f} {axes.y(curve[-1]):.1f}h.01"/>')
    return (
        f'<div class="chart"><p>CLIP similarity, step by step<b>{_last_value(curve or unguided_curve)}</b></p>'
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{describe(curve, unguided_curve)}">{"".join(shapes)}</svg></div>'
    )


def _last_value(curve: Curve) -> str:
    """Returns the percentile and the similarity of the last point."""
    last = curve[-1]
    rank = "" if last.percentile is None else f"better than {percent(last.percentile)} of captions · "
    return f"{rank}similarity {last.similarity:.2f}"


def describe(curve: Curve, unguided_curve: Curve = ()) -> str:
    """Returns the chart in words, for screen readers."""
    ranges = [
        f"{name} {points[0].similarity:.2f} to {points[-1].similarity:.2f}"
        for name, points in (("from", curve), ("unguided", unguided_curve))
        if points
    ]
    return "CLIP similarity, " + ", ".join(ranges)


@dataclass(frozen=True)
class Axes:
    """Maps steps and similarities to SVG coordinates; `low` and `high` are the ends of the similarity axis."""

    low: float
    high: float
    steps: int

    @classmethod
    def fit(cls, curve: Curve, steps: int) -> Axes:
        """Returns axes that contain all points with some margin."""
        low, high = min(point.similarity for point in curve), max(point.similarity for point in curve)
        widening = max(0.0, MIN_RANGE - (high - low)) / 2
        margin = MARGIN * max(high - low, MIN_RANGE)
        return cls(low - widening - margin, high + widening + margin, steps)

    def x(self, point: CurvePoint) -> float:
        """Returns the x coordinate of a point."""
        return PADDING + (WIDTH - 2 * PADDING) * point.step / max(self.steps - 1, 1)

    def y(self, point: CurvePoint) -> float:
        """Returns the y coordinate of a point; y grows downwards."""
        return PADDING + (HEIGHT - 2 * PADDING) * (self.high - point.similarity) / (self.high - self.low)

    def coordinates(self, curve: Curve) -> str:
        """Returns the value of an SVG `points` attribute."""
        return " ".join(f"{self.x(point):.1f},{self.y(point):.1f}" for point in curve)

    def line(self, curve: Curve, css_class: str) -> str:
        """Returns a line through all points, "" if there is none."""
        return f'<polyline class="{css_class}" points="{self.coordinates(curve)}"/>' if curve else ""

    def area(self, curve: Curve) -> str:
        """Returns the filled area between the line and the lower edge, "" if there is no point."""
        if not curve:
            return ""
        left, right, bottom = self.x(curve[0]), self.x(curve[-1]), HEIGHT - PADDING
        points = f"{left:.1f},{bottom} {self.coordinates(curve)} {right:.1f},{bottom}"
        return f'<polygon class="area" points="{points}"/>'
