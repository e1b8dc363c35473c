"""Parts that several backgrounds share: skies, clouds, stars, trees, and colours at a time of day."""

from __future__ import annotations

import math

from clipgen.world.brush import RGB, Canvas, jitter, shade

SKIES: dict[str, list[list[RGB]]] = {
    "day": [[(96, 174, 236), (190, 226, 248)], [(120, 190, 245), (214, 238, 252)], [(84, 160, 220), (200, 230, 240)]],
    "night": [[(12, 16, 48), (44, 58, 112)], [(8, 10, 34), (34, 40, 88)], [(20, 18, 56), (62, 52, 110)]],
    "sunset": [
        [(92, 60, 130), (240, 120, 96), (255, 196, 110)],
        [(60, 70, 140), (236, 110, 130), (255, 180, 120)],
        [(120, 60, 110), (250, 130, 70), (255, 214, 120)],
    ],
}
BRIGHTNESS = {"day": 1.0, "night": 0.42, "sunset": 0.78}


def sky(canvas: Canvas, time: str, horizon: float) -> None:
    """Paints a sky from the top edge to the horizon: with clouds by day, stars at night, a low sun at sunset."""
    rng = canvas.rng
    colours = [jitter(rng, c) for c in rng.choice(SKIES[time])]
    canvas.gradient([(i / (len(colours) - 1), c) for i, c in enumerate(colours)], 0, horizon + 0.14)
    if time == "night":
        stars(canvas, 26, horizon)
    elif time == "sunset":
        x = rng.uniform(0.2, 0.8)
        canvas.ellipse(x, horizon - 0.02, 0.13, 0.13, shade(colours[-1], 1.35))
        canvas.ellipse(x, horizon - 0.02, 0.09, 0.09, (255, 240, 196))
    elif rng.random() < 0.7:
        for _ in range(rng.randint(1, 3)):
            cloud(canvas, rng.random(), rng.uniform(0.06, max(horizon - 0.15, 0.1)), rng.uniform(0.05, 0.09))


def cloud(canvas: Canvas, x: float, y: float, size: float, fill: RGB = (248, 251, 255)) -> None:
    """Paints one cloud of four ellipses."""
    for dx, dy, r in ((-1.1, 0.15, 0.6), (-0.3, -0.2, 0.8), (0.6, -0.05, 0.7), (1.2, 0.2, 0.5)):
        canvas.ellipse(x + dx * size, y + dy * size, r * size, r * size * 0.75, fill)


def stars(canvas: Canvas, count: int, bottom: float) -> None:
    """Paints `count` small and a fifth as many large stars between the top edge and a height."""
    canvas.specks(count, 0, bottom, (0.002, 0.004), (225, 230, 255))
    canvas.specks(count // 5, 0, bottom, (0.005, 0.007), (255, 250, 214))


def conifer(canvas: Canvas, x: float, foot: float, height: float, fill: RGB, snowy: bool = False) -> None:
    """Paints a conifer of three triangles, with snow on top if `snowy`."""
    canvas.box(x - 0.012, foot - 0.05 * height, x + 0.012, foot, (96, 70, 50))
    for tier in range(3):
        top, half = foot - height * (0.45 + 0.275 * tier), height * (0.24 - 0.05 * tier)
        canvas.polygon([(x - half, top + height * 0.36), (x + half, top + height * 0.36), (x, top)], fill)
        if snowy:
            canvas.polygon(
                [(x - half * 0.4, top + height * 0.14), (x + half * 0.4, top + height * 0.14), (x, top)],
                (250, 252, 255),
            )


def tint(colour: RGB, time: str) -> RGB:
    """Returns a colour as it looks at a time of day: darker and bluer at night, darker and redder at sunset."""
    r, g, b = shade(colour, BRIGHTNESS[time])
    return (r, g, min(255, b + 24)) if time == "night" else (min(255, r + 14), g, b) if time == "sunset" else (r, g, b)


def palm(canvas: Canvas, x: float, foot: float, fill: RGB) -> None:
    """Paints a palm tree with seven leaves."""
    canvas.polygon(
        [(x - 0.02, foot), (x + 0.02, foot), (x + 0.035, foot - 0.44), (x + 0.012, foot - 0.44)], (138, 104, 70)
    )
    for k in range(7):
        angle = math.pi * (k / 6) + 0.05
        tip = (x + 0.02 + 0.2 * math.cos(angle), foot - 0.44 - 0.08 * math.sin(angle) + 0.05 * abs(math.cos(angle)))
        canvas.polygon([(x + 0.02, foot - 0.46), tip, (x + 0.03, foot - 0.41)], fill)


def cactus(canvas: Canvas, x: float, foot: float, height: float, fill: RGB) -> None:
    """Paints a cactus with two arms."""
    canvas.box(x - 0.018, foot - height, x + 0.018, foot, fill)
    canvas.box(x - 0.06, foot - height * 0.6, x, foot - height * 0.48, fill)
    canvas.box(x - 0.06, foot - height * 0.8, x - 0.036, foot - height * 0.5, fill)
    canvas.box(x, foot - height * 0.5, x + 0.06, foot - height * 0.38, fill)
    canvas.box(x + 0.036, foot - height * 0.72, x + 0.06, foot - height * 0.4, fill)
