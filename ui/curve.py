"""How well the picture fits the words, step by step: one small drawing, the unguided twin dashed beside it.

What is drawn is the cosine similarity on a scale of its own: the percentile is near 100 long before the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clipgen.report.score_text import percent

WIDTH, HEIGHT, EDGE = 320, 84, 8
LEAST_SPAN = 0.1  # of the scale: what moves less looks like it
AIR = 0.1  # part of the scale that stays free above and below


@dataclass(frozen=True)
class Fit:
    """How well a step's preview fits the words: the cosine, and its percentile, None where it is not calibrated."""

    step: int
    similarity: float
    percentile: float | None


Points = Sequence[Fit]


def curve(points: Points, steps: int, twin: Points = ()) -> str:
    """Returns an SVG of similarity over steps with its words, "" before there is a point; `twin` is drawn dashed."""
    if not points and not twin:
        return ""
    scale = Scale.around([*points, *twin], steps)
    lines = [f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in (EDGE, HEIGHT / 2, HEIGHT - EDGE)]
    lines += [scale.line(twin, "twin"), scale.wash(points), scale.line(points, "own")]
    if points:  # a dot that is never stretched
        lines.append(f'<path class="now" d="M{scale.x(points[-1]):.1f} {scale.y(points[-1]):.1f}h.01"/>')
    return (
        f"<p>Fit to the words, step by step<b>{_now(points or twin)}</b></p>"
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{told(points, twin)}">{"".join(lines)}</svg>'
    )


def _now(points: Points) -> str:
    """Returns the last of them in words: the percentile, and the similarity that the drawing shows."""
    last = points[-1]
    rank = "" if last.percentile is None else f"better than {percent(last.percentile)} of captions · "
    return f"{rank}similarity {last.similarity:.2f}"


def told(points: Points, twin: Points = ()) -> str:
    """Returns what the drawing shows, in words."""
    words = [
        f"{name} {line[0].similarity:.2f} to {line[-1].similarity:.2f}"
        for name, line in (("from", points), ("unguided", twin))
        if line
    ]
    return "Similarity to the words, " + ", ".join(words)


@dataclass(frozen=True)
class Scale:
    """From steps and similarities to places in the drawing."""

    low: float
    high: float
    steps: int

    @classmethod
    def around(cls, points: Points, steps: int) -> Scale:
        """Returns the scale on which all points lie, with some air."""
        least, most = min(point.similarity for point in points), max(point.similarity for point in points)
        missing = max(0.0, LEAST_SPAN - (most - least)) / 2
        air = AIR * max(most - least, LEAST_SPAN)
        return cls(least - missing - air, most + missing + air, steps)

    def x(self, point: Fit) -> float:
        """Returns how far right a step is."""
        return EDGE + (WIDTH - 2 * EDGE) * point.step / max(self.steps - 1, 1)

    def y(self, point: Fit) -> float:
        """Returns how far down a similarity is."""
        return EDGE + (HEIGHT - 2 * EDGE) * (self.high - point.similarity) / (self.high - self.low)

    def path(self, points: Points) -> str:
        """Returns points as an SVG writes them."""
        return " ".join(f"{self.x(point):.1f},{self.y(point):.1f}" for point in points)

    def line(self, points: Points, kind: str) -> str:
        """Returns the line through points, "" for none."""
        return f'<polyline class="{kind}" points="{self.path(points)}"/>' if points else ""

    def wash(self, points: Points) -> str:
        """Returns the wash of colour between the line and the floor."""
        if not points:
            return ""
        first, last, floor = self.x(points[0]), self.x(points[-1]), HEIGHT - EDGE
        return f'<polygon class="wash" points="{first:.1f},{floor} {self.path(points)} {last:.1f},{floor}"/>'
