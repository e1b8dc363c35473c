"""Drawings made with code, for concepts whose emoji shows something else: the pizza emoji is only a slice."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
SIDE = 340
OVERSAMPLING = 2


class _DiscCanvas:
    """A transparent RGBA image to paint discs on. Coordinates are in units of its side."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (SIDE * OVERSAMPLING, SIDE * OVERSAMPLING))
        self.draw = ImageDraw.Draw(self.image)

    def disc(self, x: float, y: float, radius: float, fill: RGB) -> None:
        """Paints a filled disc with centre (x, y)."""
        box = [v * self.image.width for v in (x - radius, y - radius, x + radius, y + radius)]
        self.draw.ellipse(box, fill=(*fill, 255))

    def downsampled(self) -> Image.Image:
        """Returns the antialiased drawing as RGBA, cropped to its visible pixels."""
        smooth = self.image.resize((SIDE, SIDE), Image.Resampling.BOX)
        return smooth.crop(smooth.getbbox())


@cache
def whole_pizza() -> Image.Image:
    """Returns a drawing of a pizza from above: crust, sauce, cheese, seven slices of salami and six leaves of basil."""
    canvas = _DiscCanvas()
    for radius, fill in ((0.5, (150, 84, 34)), (0.48, (214, 138, 62)), (0.405, (196, 52, 30)), (0.385, (252, 206, 92))):
        canvas.disc(0.5, 0.5, radius, fill)
    for k in range(6):
        angle = math.tau * (k / 6 + 0.04)
        _salami(canvas, 0.5 + 0.255 * math.cos(angle), 0.5 + 0.255 * math.sin(angle))
        between = angle + math.tau / 12
        canvas.disc(0.5 + 0.3 * math.cos(between), 0.5 + 0.3 * math.sin(between), 0.032, (62, 128, 50))
    _salami(canvas, 0.5, 0.5)
    return canvas.downsampled()


def _salami(canvas: _DiscCanvas, x: float, y: float) -> None:
    canvas.disc(x, y, 0.092, (150, 24, 24))
    canvas.disc(x, y, 0.078, (216, 58, 44))


PAINTED: dict[str, Callable[[], Image.Image]] = {"(whole pizza)": whole_pizza}
