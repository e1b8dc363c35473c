"""Drawings of concepts: read from the sets in art.py or painted by painted.py, and recoloured."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipgen.world.art import read_drawing
from clipgen.world.painted import PAINTED

Array = npt.NDArray[np.float32]
HUE_BINS = 36
HUES = {"red": 0.0, "orange": 0.075, "yellow": 0.14, "green": 0.33, "blue": 0.6, "purple": 0.77, "pink": 0.91}


def drawing_image(emoji: str, art: str) -> Image.Image:
    """Returns a drawing as RGBA, cropped to its visible pixels.

    Args:
        emoji: An emoji, or the name of a drawing in PAINTED.
        art: The set of drawings: "flat", "3d" or "noto". Ignored for a drawing in PAINTED.
    """
    return PAINTED[emoji]() if emoji in PAINTED else read_drawing(emoji, art)


def dominant_hue(emoji: str, art: str) -> str:
    """Returns the hue of more than 60% of a drawing's coloured pixels, one of HUES, or an empty string.

    A pixel is coloured if its saturation is above 0.35. If less than a third of the visible pixels are coloured, the
    drawing has no dominant hue.
    """
    hue, saturation, _, alpha = _hsva(drawing_image(emoji, art))
    visible, coloured = alpha > 0.5, (alpha > 0.5) & (saturation > 0.35)
    if coloured.sum() < visible.sum() / 3:
        return ""
    distance = {name: np.abs((hue[coloured] - h + 0.5) % 1.0 - 0.5) for name, h in HUES.items()}
    nearest = np.stack(list(distance.values())).argmin(0)
    share = np.bincount(nearest, minlength=len(HUES)) / len(nearest)
    return list(HUES)[int(share.argmax())] if share.max() > 0.6 else ""


@lru_cache(maxsize=4096)
def recoloured(emoji: str, colour: str, art: str) -> Image.Image:
    """Returns a drawing with its dominant hue replaced by a colour. Shading and other hues stay.

    Args:
        emoji: An emoji, or the name of a drawing in PAINTED.
        colour: One of COLOURS.
        art: The set of drawings.
    """
    image = drawing_image(emoji, art)
    hue, saturation, value, alpha = _hsva(image)
    main_hue = _main_hue(hue[(alpha > 0.5) & (saturation > 0.35)])
    # 1 for saturated pixels near the dominant hue, falling to 0 for other hues and for grey pixels, [H, W]
    weight = np.clip(1.6 - np.abs((hue - main_hue + 0.5) % 1.0 - 0.5) / 0.1, 0, 1) * np.clip(saturation / 0.3, 0, 1)
    rgb = np.asarray(image, np.float32)[..., :3] / 255
    mixed = rgb + weight[..., None] * (_rgb(*_in_colour(colour, hue, saturation, value)) - rgb)
    return Image.fromarray((np.dstack([mixed, alpha]) * 255).round().astype(np.uint8), "RGBA")


def _in_colour(colour: str, hue: Array, saturation: Array, value: Array) -> tuple[Array, Array, Array]:
    """Returns hue, saturation and value, each [H, W] in [0, 1], of pixels changed to a colour."""
    match colour:
        case "pink":
            return np.full_like(hue, HUES[colour]), saturation * 0.5, np.clip(value * 0.4 + 0.6, 0, 1)
        case "brown":
            return np.full_like(hue, 0.07), np.clip(saturation, 0.55, 0.75), value * 0.58
        case "black":
            return hue, saturation * 0.1, value * 0.3
        case "white":
            return hue, saturation * 0.06, np.clip(value * 0.25 + 0.74, 0, 1)
    return np.full_like(hue, HUES[colour]), np.clip(saturation * 1.1, 0, 1), np.clip(value * 1.05, 0, 1)


def _main_hue(hues: Array) -> float:
    """Returns the circular mean of the hues around the most frequent one."""
    counts = np.histogram(hues, HUE_BINS, (0, 1))[0]
    smooth = counts + np.roll(counts, 1) + np.roll(counts, -1)
    peak = (smooth.argmax() + 0.5) / HUE_BINS
    near = hues[np.abs((hues - peak + 0.5) % 1.0 - 0.5) < 2 / HUE_BINS]
    angle = np.angle(np.exp(2j * np.pi * near).mean())
    return float(angle / (2 * np.pi)) % 1.0


def _hsva(image: Image.Image) -> tuple[Array, Array, Array, Array]:
    """Returns hue, saturation, value and alpha of an RGBA image, each [H, W] in [0, 1]."""
    rgba = np.asarray(image, np.float32) / np.float32(255)
    hsv = np.asarray(image.convert("RGB").convert("HSV"), np.float32) / np.float32(255)
    return hsv[..., 0], hsv[..., 1], hsv[..., 2], rgba[..., 3]


def _rgb(hue: Array, saturation: Array, value: Array) -> Array:
    """Converts hue, saturation and value, each [H, W] in [0, 1], to RGB [H, W, 3] in [0, 1]."""
    stacked = np.dstack([hue % 1.0, saturation, value])
    image = Image.fromarray((stacked * 255).round().astype(np.uint8), "HSV")
    return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Returns the RGB colour, 0 to 255, of a plain background."""
    hsv_by_name = {"brown": (0.07, 0.5, 0.55), "black": (0.0, 0.0, 0.09), "white": (0.1, 0.015, 0.98)}
    hue, saturation, value = hsv_by_name.get(colour) or (HUES[colour], 0.38 if colour == "pink" else 0.5, 0.9)
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(r * 255), round(g * 255), round(b * 255)
