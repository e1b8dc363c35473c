"""How well the picture fits the words, step by step: one small drawing, the unguided twin dashed beside it."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT, EDGE = 320, 84, 6

Points = Sequence[tuple[int, float]]  # (step, percentile)


def curve(points: Points, steps: int, twin: Points = ()) -> str:
    """Returns an SVG of percentiles over steps, "" before there is a point; `twin` is drawn dashed below it."""
    if not points and not twin:
        return ""
    lines = [
        f'<line class="grid" x1="0" x2="{WIDTH}" y1="{_y(level):.1f}" y2="{_y(level):.1f}"/>' for level in (0, 50, 100)
    ]
    lines += [_line(twin, steps, "twin"), _area(points, steps), _line(points, steps, "own")]
    if points:
        step, level = points[-1]
        lines.append(
            f'<path class="now" d="M{_x(step, steps):.1f} {_y(level):.1f}h.01"/>'
        )  # a dot that is never stretched
    return (
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{told(points, twin)}">{"".join(lines)}</svg>'
    )


def told(points: Points, twin: Points = ()) -> str:
    """Returns what the drawing shows, in words."""
    words = [
        f"{name} {line[0][1]:.0f} to {line[-1][1]:.0f} %"
        for name, line in (("from", points), ("unguided", twin))
        if line
    ]
    return "Fit to the words, " + ", ".join(words)


def _x(step: int, steps: int) -> float:
    return EDGE + (WIDTH - 2 * EDGE) * step / max(steps - 1, 1)


def _y(level: float) -> float:
    return EDGE + (HEIGHT - 2 * EDGE) * (1 - level / 100)


def _path(points: Points, steps: int) -> str:
    return " ".join(f"{_x(step, steps):.1f},{_y(level):.1f}" for step, level in points)


def _line(points: Points, steps: int, kind: str) -> str:
    return f'<polyline class="{kind}" points="{_path(points, steps)}"/>' if points else ""


def _area(points: Points, steps: int) -> str:
    """Returns the wash of colour between the line and the floor."""
    if not points:
        return ""
    first, last = _x(points[0][0], steps), _x(points[-1][0], steps)
    return f'<polygon class="wash" points="{first:.1f},{_y(0):.1f} {_path(points, steps)} {last:.1f},{_y(0):.1f}"/>'
