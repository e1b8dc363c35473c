"""Scene -> picture."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from clipgen.world.backgrounds import PAINTERS
from clipgen.world.brush import Canvas
from clipgen.world.drawings import drawing_image, recoloured, rgb_of
from clipgen.world.scene import FLOATING, Scene, Thing
from clipgen.world.styles import FILTERS

OVERSAMPLING = 2


def render(scene: Scene, size: int = 128) -> Image.Image:
    """Paints a scene as an RGB picture of `size` x `size` pixels; the same scene gives the same picture."""
    rng = random.Random(scene.seed ^ 0x5EED)
    canvas = _background(scene, size * OVERSAMPLING, rng).resize((size, size), Image.Resampling.BOX)
    behind_first = sorted(((box, thing) for thing in scene.things for box in thing.boxes), key=lambda pair: pair[0][1])
    for box, thing in behind_first:
        _place(canvas, scene, thing, box, rng)
    return FILTERS[scene.style](canvas)


def _background(scene: Scene, size: int, rng: random.Random) -> Image.Image:
    canvas = Canvas(size, rng)
    if scene.is_plain:
        paint = np.array(rgb_of(scene.place))
        canvas.gradient([(0, tuple((paint * 0.96).astype(int))), (1, tuple(np.minimum(paint * 1.05, 255).astype(int)))])
    else:
        PAINTERS[scene.place](canvas, scene.time)
    return canvas.image


def _place(
    canvas: Image.Image, scene: Scene, thing: Thing, box: tuple[float, float, float], rng: random.Random
) -> None:
    """Pastes one drawing with its foot at the box's place, over a soft shadow where there is a ground."""
    x, foot, height = (v * canvas.width for v in box)
    drawing = (
        recoloured(thing.drawing, thing.colour, thing.art) if thing.colour else drawing_image(thing.drawing, thing.art)
    )
    scale = height / max(drawing.width, drawing.height)
    width, high = max(2, round(drawing.width * scale)), max(2, round(drawing.height * scale))
    drawing = drawing.resize((width, high), Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    if thing.flip:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.3:
        drawing = drawing.rotate(rng.uniform(-9, 9), Image.Resampling.BICUBIC, expand=True)
    left, top = round(x - drawing.width / 2), round(foot - drawing.height)
    if scene.place not in FLOATING and foot > 0.7 * canvas.width:
        _shadow(canvas, x, foot, width, 0.34 if scene.time == "day" else 0.5)
    canvas.paste(drawing, (left, top), drawing)


def _shadow(canvas: Image.Image, x: float, foot: float, width: float, strength: float) -> None:
    """Darkens a soft ellipse under a foot."""
    w, h = round(width * 1.05), max(4, round(width * 0.17))
    mask = Image.new("L", (w + 2 * h, 3 * h))
    ImageDraw.Draw(mask).ellipse((h, h, w + h, 2 * h), fill=round(255 * strength))
    mask = mask.filter(ImageFilter.BoxBlur(h / 3))
    canvas.paste((24, 20, 44), (round(x - mask.width / 2), round(foot - mask.height * 0.56)), mask)
