"""Training curves as PNG, drawn with Pillow: one panel per figure."""

from __future__ import annotations

import json
import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PANEL = (360, 220)
INK, LINE, PAPER = (60, 56, 50), (214, 96, 60), (250, 248, 243)
Series = list[tuple[float, float]]


def draw_curves(log: Path, target: Path) -> None:
    """Draws every figure of a log.jsonl over minutes of training."""
    series = _series(log)
    columns = min(3, max(1, len(series)))
    rows = math.ceil(len(series) / columns)
    sheet = Image.new("RGB", (columns * PANEL[0], rows * PANEL[1]), PAPER)
    for k, (name, points) in enumerate(series.items()):
        sheet.paste(_panel(name, points), ((k % columns) * PANEL[0], (k // columns) * PANEL[1]))
    sheet.save(target)


def _series(log: Path) -> dict[str, Series]:
    series: dict[str, Series] = {}
    for line in log.read_text("utf-8").splitlines():
        entry = json.loads(line)
        for name, value in entry.items():
            if name not in ("step", "minutes", "evaluated", "stored") and isinstance(value, float):
                series.setdefault(name, []).append((entry["minutes"], value))
    return series


def _panel(name: str, points: Series) -> Image.Image:
    panel = Image.new("RGB", PANEL, PAPER)
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(12)
    left, top, right, bottom = 52, 28, PANEL[0] - 14, PANEL[1] - 26
    smooth = _smoothed(points)
    low, high = min(v for _, v in smooth), max(v for _, v in smooth)
    last = max(points[-1][0], 1e-9)

    def place(t: float, v: float) -> tuple[float, float]:
        return left + (right - left) * t / last, bottom - (bottom - top) * (v - low) / ((high - low) or 1)

    draw.rectangle((left, top, right, bottom), outline=(206, 200, 190))
    if len(smooth) > 1:
        draw.line([place(t, v) for t, v in smooth], fill=LINE, width=2)
    draw.text((left, 8), name, fill=INK, font=font)
    draw.text((4, top - 6), f"{high:.3g}", fill=INK, font=font)
    draw.text((4, bottom - 10), f"{low:.3g}", fill=INK, font=font)
    draw.text((right - 60, bottom + 6), f"{last:.0f} min", fill=INK, font=font)
    return panel


def _smoothed(points: Series, weight: float = 0.9) -> Series:
    """Returns the exponential moving average; series of fewer than 30 points are returned unchanged."""
    if len(points) < 30:
        return points
    mean, smooth = points[0][1], []
    for t, v in points:
        mean = weight * mean + (1 - weight) * v
        smooth.append((t, mean))
    return smooth
