"""Drawings of our own, where no emoji shows what people mean: a pizza is round and whole, its emoji is a slice."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
SIDE = 340
OVERSAMPLING = 2


class _Brush:
    """Paints discs in units of the drawing's side onto a transparent ground."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (SIDE * OVERSAMPLING, SIDE * OVERSAMPLING))
        self.draw = ImageDraw.Draw(self.image)

    def disc(self, x: float, y: float, radius: float, fill: RGB) -> None:
        """Paints a disc around (x, y)."""
        box = [v * self.image.width for v in (x - radius, y - radius, x + radius, y + radius)]
        self.draw.ellipse(box, fill=(*fill, 255))

    def finished(self) -> Image.Image:
        """Returns the smooth drawing as RGBA, cropped to what is visible."""
        smooth = self.image.resize((SIDE, SIDE), Image.Resampling.BOX)
        return smooth.crop(smooth.getbbox())


@cache
def whole_pizza() -> Image.Image:
    """Paints a pizza from above: a crust, sauce, cheese, six slices of salami around a seventh, leaves of basil."""
    brush = _Brush()
    for radius, fill in ((0.5, (150, 84, 34)), (0.48, (214, 138, 62)), (0.405, (196, 52, 30)), (0.385, (252, 206, 92))):
        brush.disc(0.5, 0.5, radius, fill)
    for k in range(6):
        angle = math.tau * (k / 6 + 0.04)
        _salami(brush, 0.5 + 0.255 * math.cos(angle), 0.5 + 0.255 * math.sin(angle))
        between = angle + math.tau / 12
        brush.disc(0.5 + 0.3 * math.cos(between), 0.5 + 0.3 * math.sin(between), 0.032, (62, 128, 50))
    _salami(brush, 0.5, 0.5)
    return brush.finished()


def _salami(brush: _Brush, x: float, y: float) -> None:
    brush.disc(x, y, 0.092, (150, 24, 24))
    brush.disc(x, y, 0.078, (216, 58, 44))


PAINTED: dict[str, Callable[[], Image.Image]] = {"(whole pizza)": whole_pizza}
