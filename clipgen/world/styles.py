"""Styles: filters that are applied to a rendered RGB image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps


def pixel_art(image: Image.Image) -> Image.Image:
    """Returns the image as blocks of 4 x 4 pixels with 16 levels per channel."""
    small = image.resize((image.width // 4, image.height // 4), Image.Resampling.BOX)
    small = ImageEnhance.Color(ImageOps.posterize(small, 4)).enhance(1.25)
    return small.resize(image.size, Image.Resampling.NEAREST)


def _edges(image: Image.Image) -> Image.Image:
    """Returns an edge map (mode L): the ratio of the image to its blurred copy, white without edges, dark at edges."""
    grey = image.convert("L")
    blurred = grey.filter(ImageFilter.GaussianBlur(image.width / 50))
    a, b = np.asarray(grey, np.float32), np.asarray(blurred, np.float32)
    return Image.fromarray(np.clip(a * 255 / (b + 1), 0, 255).astype(np.uint8))


def pencil_sketch(image: Image.Image) -> Image.Image:
    """Returns the edges with some shading in grey on a paper colour."""
    lines = np.asarray(_edges(image), np.float32) / 255
    tone = np.asarray(image.convert("L"), np.float32) / 255
    grey = np.clip((lines - 0.72) / 0.28, 0, 1) * (0.72 + 0.28 * tone)
    paper = np.array([246, 243, 236], np.float32)
    return Image.fromarray((grey[..., None] * paper).astype(np.uint8))


def watercolour(image: Image.Image) -> Image.Image:
    """Returns the image smoothed and lightened, with darker edges."""
    soft = image.filter(ImageFilter.MedianFilter(3 if image.width < 200 else 5))
    wash = soft.filter(ImageFilter.GaussianBlur(image.width / 220))
    rims = np.asarray(_edges(soft), np.float32)[..., None] / 255
    paint = np.asarray(wash, np.float32) / 255
    paint = 1 - (1 - paint) * 0.72
    return Image.fromarray((255 * paint * np.clip(rims + 0.12, 0, 1)).clip(0, 255).astype(np.uint8))


def black_and_white(image: Image.Image) -> Image.Image:
    """Returns the image in grey with full contrast."""
    return ImageOps.autocontrast(image.convert("L"), cutoff=1).convert("RGB")


def neon(image: Image.Image) -> Image.Image:
    """Returns the edges in saturated colours with a glow around them, on a nearly black image."""
    lines = ImageOps.invert(_edges(image)).filter(ImageFilter.MaxFilter(3))
    strength = np.clip(np.asarray(lines, np.float32) / 255 * 3.2, 0, 1)[..., None]
    hsv = np.asarray(image.convert("HSV"), np.uint8).copy()
    hsv[..., 1] = np.maximum(hsv[..., 1], 150)
    hsv[..., 2] = 255
    bright = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"), np.float32)
    glow = Image.fromarray((bright * strength).astype(np.uint8))
    halo = glow.filter(ImageFilter.GaussianBlur(image.width / 40))
    dark = ImageEnhance.Brightness(image).enhance(0.12)
    return ImageChops.add(ImageChops.add(dark, halo), glow)


FILTERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "picture book": lambda image: image,
    "pixel art": pixel_art,
    "pencil sketch": pencil_sketch,
    "watercolour": watercolour,
    "black and white": black_and_white,
    "neon": neon,
}
