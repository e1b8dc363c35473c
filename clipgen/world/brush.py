"""The brush: a canvas in units of its side, and colours made darker, lighter or a little different."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Stops = Sequence[tuple[float, RGB]]


class Canvas:
    """A square picture under the brush; places are in units of its side, y downwards."""

    def __init__(self, size: int, rng: random.Random) -> None:
        self.size, self.rng = size, rng
        self.image = Image.new("RGB", (size, size))
        self.draw = ImageDraw.Draw(self.image)

    def gradient(self, stops: Stops, top: float = 0.0, bottom: float = 1.0) -> None:
        """Fills the band between two heights with a vertical gradient through (position, colour) stops."""
        y0, y1 = round(top * self.size), round(bottom * self.size)
        at = np.linspace(0, 1, max(y1 - y0, 1))
        places = [place for place, _ in stops]
        rows = np.stack([np.interp(at, places, [c[i] for _, c in stops]) for i in range(3)], -1)
        band = np.repeat(rows[:, None].round().astype(np.uint8), self.size, 1)
        self.image.paste(Image.fromarray(band), (0, y0))

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: RGB) -> None:
        """Paints an ellipse around (x, y)."""
        s = self.size
        self.draw.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=fill)

    def polygon(self, points: Sequence[tuple[float, float]], fill: RGB) -> None:
        """Paints a polygon."""
        self.draw.polygon([(x * self.size, y * self.size) for x, y in points], fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: RGB) -> None:
        """Paints a rectangle."""
        s = self.size
        self.draw.rectangle((x0 * s, y0 * s, x1 * s, y1 * s), fill=fill)

    def line(self, x0: float, y0: float, x1: float, y1: float, fill: RGB, width: float = 0.006) -> None:
        """Paints a line."""
        s = self.size
        self.draw.line((x0 * s, y0 * s, x1 * s, y1 * s), fill=fill, width=max(1, round(width * s)))

    def hills(self, base: float, height: float, fill: RGB, waves: float = 2.0) -> None:
        """Paints a rolling ground from a wavy horizon down to the bottom edge."""
        phase, second = self.rng.uniform(0, 6.3), self.rng.uniform(0, 6.3)
        crest = [
            (x / 24, base + height * (0.6 * math.sin(waves * x / 24 * 3 + phase) + 0.4 * math.sin(x / 4 + second)))
            for x in range(25)
        ]
        self.polygon([(0, 1.01), *crest, (1, 1.01)], fill)

    def specks(self, count: int, top: float, bottom: float, radius: tuple[float, float], fill: RGB) -> None:
        """Scatters dots over the band between two heights."""
        for _ in range(count):
            r = self.rng.uniform(*radius)
            self.ellipse(self.rng.random(), self.rng.uniform(top, bottom), r, r, fill)


def mapped(colour: RGB, change: Callable[[int], int]) -> RGB:
    """Changes red, green and blue alike, in that order."""
    red, green, blue = colour
    return change(red), change(green), change(blue)


def shade(colour: RGB, factor: float) -> RGB:
    """Darkens (below 1) or lightens (above 1, towards white) a colour."""
    if factor <= 1:
        return mapped(colour, lambda c: round(c * factor))
    return mapped(colour, lambda c: round(c + (255 - c) * (factor - 1)))


def blended(a: RGB, b: RGB, share: float) -> RGB:
    """Mixes `share` of the second colour into the first."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def varied(rng: random.Random, colour: RGB, spread: int = 10) -> RGB:
    """Moves a colour a little at random."""
    return mapped(colour, lambda c: min(255, max(0, c + rng.randint(-spread, spread))))
