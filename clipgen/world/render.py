"""Renders scenes as images."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from clipgen.world.backgrounds import PAINTERS
from clipgen.world.brush import Canvas
from clipgen.world.drawings import drawing_image, recoloured, rgb_of
from clipgen.world.scene import FLOATING, Box, Scene, Thing
from clipgen.world.styles import FILTERS

OVERSAMPLING = 2


def render(scene: Scene, size: int) -> Image.Image:
    """Returns an RGB image of a scene with a side of `size` pixels. The same scene always gives the same image."""
    rng = random.Random(scene.seed ^ 0x5EED)
    canvas = _background(scene, size * OVERSAMPLING, rng).resize((size, size), Image.Resampling.BOX)
    copies = [(box, thing) for thing in scene.things for box in thing.boxes]
    for box, thing in sorted(copies, key=lambda copy: copy[0][1]):  # the one with the lowest foot is in front
        _paste_copy(canvas, scene, thing, box, rng)
    return FILTERS[scene.style](canvas)


def _background(scene: Scene, size: int, rng: random.Random) -> Image.Image:
    """Returns the place or the plain background of a scene."""
    canvas = Canvas(size, rng)
    if scene.is_plain:
        rgb = np.array(rgb_of(scene.place))
        canvas.gradient([(0, tuple((rgb * 0.96).astype(int))), (1, tuple(np.minimum(rgb * 1.05, 255).astype(int)))])
    else:
        PAINTERS[scene.place](canvas, scene.time)
    return canvas.image


def _paste_copy(canvas: Image.Image, scene: Scene, thing: Thing, box: Box, rng: random.Random) -> None:
    """Pastes one copy of a thing into its box, slightly rotated at random, with a shadow if it stands on ground."""
    x, foot, height = (v * canvas.width for v in box)
    drawing = (
        recoloured(thing.drawing, thing.colour, thing.art) if thing.colour else drawing_image(thing.drawing, thing.art)
    )
    scale = height / max(drawing.width, drawing.height)
    pixel_width, pixel_height = max(2, round(drawing.width * scale)), max(2, round(drawing.height * scale))
    resampling = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    drawing = drawing.resize((pixel_width, pixel_height), resampling)
    if thing.flip:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.3:
        drawing = drawing.rotate(rng.uniform(-9, 9), Image.Resampling.BICUBIC, expand=True)
    left, top = round(x - drawing.width / 2), round(foot - drawing.height)
    if scene.place not in FLOATING and foot > 0.7 * canvas.width:
        _shadow(canvas, x, foot, pixel_width, 0.34 if scene.time == "day" else 0.5)
    canvas.paste(drawing, (left, top), drawing)


def _shadow(canvas: Image.Image, x: float, foot: float, width: float, strength: float) -> None:
    """Paints a blurred dark ellipse below the foot of a drawing."""
    w, h = round(width * 1.05), max(4, round(width * 0.17))
    mask = Image.new("L", (w + 2 * h, 3 * h))
    ImageDraw.Draw(mask).ellipse((h, h, w + h, 2 * h), fill=round(255 * strength))
    mask = mask.filter(ImageFilter.BoxBlur(h / 3))
    canvas.paste((24, 20, 44), (round(x - mask.width / 2), round(foot - mask.height * 0.56)), mask)
