"""A canvas for painting backgrounds, and functions that change RGB colours."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Stops = Sequence[tuple[float, RGB]]


class Canvas:
    """A square RGB image to paint on. Coordinates are in units of its side, from the top left, y downwards.

    `size` is the side in pixels; `rng` decides every random detail of the painting.
    """

    def __init__(self, size: int, rng: random.Random) -> None:
        self.size, self.rng = size, rng
        self.image = Image.new("RGB", (size, size))
        self.draw = ImageDraw.Draw(self.image)

    def gradient(self, stops: Stops, top: float = 0.0, bottom: float = 1.0) -> None:
        """Fills the band between two heights with a vertical gradient.

        Args:
            stops: (position in [0, 1], colour) in ascending order; colours between two stops are interpolated.
            top: Upper edge of the band.
            bottom: Lower edge of the band.
        """
        y0, y1 = round(top * self.size), round(bottom * self.size)
        heights = np.linspace(0, 1, max(y1 - y0, 1))
        positions = [position for position, _ in stops]
        rows = np.stack([np.interp(heights, positions, [c[i] for _, c in stops]) for i in range(3)], -1)  # [H, 3]
        band = np.repeat(rows[:, None].round().astype(np.uint8), self.size, 1)
        self.image.paste(Image.fromarray(band), (0, y0))

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: RGB) -> None:
        """Paints a filled ellipse with centre (x, y) and radii rx, ry."""
        s = self.size
        self.draw.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=fill)

    def polygon(self, points: Sequence[tuple[float, float]], fill: RGB) -> None:
        """Paints a filled polygon."""
        self.draw.polygon([(x * self.size, y * self.size) for x, y in points], fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: RGB) -> None:
        """Paints a filled rectangle from (x0, y0) to (x1, y1)."""
        s = self.size
        self.draw.rectangle((x0 * s, y0 * s, x1 * s, y1 * s), fill=fill)

    def line(self, x0: float, y0: float, x1: float, y1: float, fill: RGB, width: float = 0.006) -> None:
        """Paints a straight line from (x0, y0) to (x1, y1)."""
        s = self.size
        self.draw.line((x0 * s, y0 * s, x1 * s, y1 * s), fill=fill, width=max(1, round(width * s)))

    def hills(self, base: float, height: float, fill: RGB, waves: float = 2.0) -> None:
        """Paints hilly ground from a wavy line down to the bottom edge.

        Args:
            base: Mean y of the line.
            height: Largest distance of the line from `base`.
            fill: Colour of the ground.
            waves: Frequency of the longer of the two waves.
        """
        phase, second = self.rng.uniform(0, 6.3), self.rng.uniform(0, 6.3)
        crest = [
            (x / 24, base + height * (0.6 * math.sin(waves * x / 24 * 3 + phase) + 0.4 * math.sin(x / 4 + second)))
            for x in range(25)
        ]
        self.polygon([(0, 1.01), *crest, (1, 1.01)], fill)

    def specks(self, count: int, top: float, bottom: float, radius: tuple[float, float], fill: RGB) -> None:
        """Paints dots at random positions between two heights; their radii are in the given range."""
        for _ in range(count):
            r = self.rng.uniform(*radius)
            self.ellipse(self.rng.random(), self.rng.uniform(top, bottom), r, r, fill)


def map_channels(colour: RGB, change: Callable[[int], int]) -> RGB:
    """Returns a colour with a function applied to red, green and blue, in this order."""
    red, green, blue = colour
    return change(red), change(green), change(blue)


def shade(colour: RGB, factor: float) -> RGB:
    """Returns a darker colour (factor 0 to 1, 0 is black) or a lighter one (factor 1 to 2, 2 is white)."""
    if factor <= 1:
        return map_channels(colour, lambda c: round(c * factor))
    return map_channels(colour, lambda c: round(c + (255 - c) * (factor - 1)))


def blend(a: RGB, b: RGB, share: float) -> RGB:
    """Returns the linear interpolation of two colours; share 0 is the first, 1 the second."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def jitter(rng: random.Random, colour: RGB, spread: int = 10) -> RGB:
    """Returns a colour with a random integer of at most `spread` added to each channel."""
    return map_channels(colour, lambda c: min(255, max(0, c + rng.randint(-spread, spread))))
