"""Painters of the fourteen places. Each has its own palettes, horizon and props, varied by the canvas's generator."""

from __future__ import annotations

import math
from collections.abc import Callable

from clipgen.world.brush import Canvas, blend, jitter, shade
from clipgen.world.props import SKIES, cactus, cloud, conifer, palm, sky, stars, tint


def snow(canvas: Canvas, time: str) -> None:
    """Paints a snowy field with falling snow and often conifers."""
    rng, horizon = canvas.rng, canvas.rng.uniform(0.46, 0.6)
    sky(canvas, time, horizon)
    if rng.random() < 0.6:
        canvas.hills(horizon - 0.05, 0.04, tint((206, 222, 240), time))
    for _ in range(rng.choice((0, 2, 3, 4))):
        conifer(canvas, rng.random(), horizon + 0.05, rng.uniform(0.2, 0.36), tint((74, 124, 108), time), snowy=True)
    canvas.hills(horizon + 0.03, 0.025, tint((236, 243, 251), time))
    canvas.hills(horizon + 0.2, 0.03, tint((250, 252, 255), time))
    canvas.specks(46, 0, 1, (0.004, 0.011), (255, 255, 255))


def forest(canvas: Canvas, time: str) -> None:
    """Paints conifers and leafy trees in three rows, the nearest darkest."""
    rng = canvas.rng
    horizon = rng.uniform(0.55, 0.66)
    sky(canvas, time, horizon)
    canvas.box(0, 0.18, 1, horizon, tint(jitter(rng, (120, 170, 116)), time))
    for depth in (0.62, 0.8, 1.0):
        green = tint(jitter(rng, shade((88, 146, 82), 1.25 - depth * 0.45)), time)
        for _ in range(4):
            x = rng.random()
            if rng.random() < 0.5:
                conifer(canvas, x, horizon + depth * 0.04, rng.uniform(0.4, 0.62), green)
            else:
                canvas.box(x - 0.018, 0.2, x + 0.018, horizon + depth * 0.04, tint((104, 78, 56), time))
                for _ in range(3):
                    canvas.ellipse(x + rng.uniform(-0.09, 0.09), rng.uniform(0.04, 0.28), 0.12, 0.1, green)
    canvas.hills(horizon + 0.03, 0.015, tint(jitter(rng, (92, 146, 70)), time))
    canvas.hills(horizon + 0.16, 0.02, tint(jitter(rng, (112, 164, 80)), time))


def beach(canvas: Canvas, time: str) -> None:
    """Paints sand, foam and a calm sea."""
    rng, horizon = canvas.rng, canvas.rng.uniform(0.36, 0.46)
    sky(canvas, time, horizon)
    deep = tint(jitter(rng, rng.choice([(38, 138, 196), (30, 150, 180), (50, 120, 190)])), time)
    canvas.gradient([(0, deep), (1, shade(deep, 1.35))], horizon, 0.72)
    for _ in range(7):
        x, y = rng.random(), rng.uniform(horizon + 0.02, 0.58)
        canvas.line(x, y, x + 0.1, y, shade(deep, 1.3))
    shore = rng.uniform(0.58, 0.66)
    canvas.hills(shore, 0.022, (242, 250, 252) if time == "day" else shade(deep, 1.6), 1.2)
    sand = tint(jitter(rng, (240, 214, 160)), time)
    canvas.hills(shore + 0.025, 0.022, sand, 1.2)
    canvas.hills(shore + 0.17, 0.03, shade(sand, 0.95), 1.0)
    if rng.random() < 0.4:
        palm(canvas, rng.choice((0.08, 0.92)), 0.72, tint((70, 140, 80), time))


def night_sky(canvas: Canvas, time: str) -> None:
    """Paints a starry night with a moon over dark hills."""
    rng = canvas.rng
    colours = [jitter(rng, c, 6) for c in rng.choice(SKIES["night"])]
    canvas.gradient([(0, colours[0]), (1, colours[1])])
    stars(canvas, 46, 0.8)
    if rng.random() < 0.75:
        x, y = rng.choice((0.15, 0.85)), rng.uniform(0.12, 0.22)
        canvas.ellipse(x, y, 0.1, 0.1, shade(colours[1], 1.18))
        canvas.ellipse(x, y, 0.075, 0.075, (250, 244, 208))
    canvas.hills(0.78, 0.04, shade(jitter(rng, (44, 62, 84)), 0.8))
    canvas.hills(0.88, 0.03, shade(jitter(rng, (34, 54, 60)), 0.8))


def desert(canvas: Canvas, time: str) -> None:
    """Paints dunes and cacti."""
    rng, horizon = canvas.rng, canvas.rng.uniform(0.46, 0.56)
    sky(canvas, time, horizon)
    sand = jitter(rng, rng.choice([(236, 190, 120), (228, 168, 104), (240, 200, 140)]))
    canvas.hills(horizon, 0.05, tint(shade(sand, 0.88), time), 1.2)
    for _ in range(rng.randint(0, 3)):
        cactus(canvas, rng.random(), horizon + 0.1, rng.uniform(0.14, 0.24), tint((86, 140, 84), time))
    canvas.hills(horizon + 0.12, 0.05, tint(sand, time), 1.0)
    canvas.hills(horizon + 0.3, 0.04, tint(shade(sand, 1.2), time), 1.4)


def meadow(canvas: Canvas, time: str) -> None:
    """Paints grass with flowers under an open sky."""
    rng, horizon = canvas.rng, canvas.rng.uniform(0.46, 0.58)
    sky(canvas, time, horizon)
    grass = jitter(rng, rng.choice([(122, 190, 84), (140, 200, 92), (104, 176, 90)]))
    canvas.hills(horizon - 0.03, 0.05, tint(shade(grass, 0.84), time))
    canvas.hills(horizon + 0.05, 0.03, tint(grass, time))
    canvas.hills(horizon + 0.24, 0.03, tint(shade(grass, 1.12), time))
    for _ in range(rng.choice((0, 12, 20))):
        x, y = rng.random(), rng.uniform(horizon + 0.12, 0.98)
        colour = tint(rng.choice([(255, 255, 255), (255, 220, 90), (250, 140, 160), (200, 150, 240)]), time)
        canvas.ellipse(x, y, 0.011, 0.011, colour)


def sunset(canvas: Canvas, time: str) -> None:
    """Paints a large low sun over dark hills."""
    rng = canvas.rng
    colours = [jitter(rng, c) for c in rng.choice(SKIES["sunset"])]
    canvas.gradient([(0, colours[0]), (0.45, colours[1]), (0.75, colours[2]), (1, colours[2])])
    x = rng.uniform(0.25, 0.75)
    for r, lift in ((0.27, 1.12), (0.22, 1.3), (0.17, 1.7)):
        canvas.ellipse(x, 0.66, r, r, shade(colours[2], lift))
    canvas.hills(0.72, 0.03, jitter(rng, (112, 62, 84)), 1.4)
    canvas.hills(0.82, 0.03, jitter(rng, (78, 44, 66)), 1.2)


def under_the_sea(canvas: Canvas, time: str) -> None:
    """Paints deep water with rays of light, seaweed and bubbles."""
    rng = canvas.rng
    top = jitter(rng, rng.choice([(64, 178, 214), (50, 160, 206), (70, 190, 200)]))
    canvas.gradient([(0, top), (0.7, shade(top, 0.62)), (1, shade(top, 0.45))])
    for _ in range(3):
        x = rng.random()
        canvas.polygon([(x, 0), (x + 0.07, 0), (x - 0.05, 0.62), (x - 0.2, 0.62)], shade(top, 1.07))
    canvas.hills(0.88, 0.025, jitter(rng, (196, 184, 138)))
    for _ in range(rng.randint(3, 7)):
        x, h = rng.random(), rng.uniform(0.1, 0.3)
        green = jitter(rng, rng.choice([(46, 130, 96), (70, 150, 90), (190, 90, 110)]), 16)
        for k in range(6):
            y = 0.93 - h * k / 6
            canvas.ellipse(x + 0.014 * math.sin(k * 1.5), y, 0.016, h / 8, green)
    for _ in range(14):
        r = rng.uniform(0.006, 0.016)
        x, y = rng.random(), rng.random() * 0.85
        canvas.ellipse(x, y, r, r, shade(top, 1.5))


def outer_space(canvas: Canvas, time: str) -> None:
    """Paints black space with a nebula, stars and sometimes a planet."""
    rng = canvas.rng
    base = rng.choice([(14, 10, 36), (8, 12, 32), (24, 10, 40)])
    canvas.gradient([(0, base), (1, shade(base, 1.08))])
    glow = rng.choice([(74, 40, 120), (30, 60, 120), (110, 40, 90)])
    x, y = rng.random(), rng.random()
    for k in range(9, 0, -1):
        canvas.ellipse(x, y, 0.075 * k, 0.05 * k, blend(base, glow, (1 - k / 10) * 0.7))
    stars(canvas, 70, 1)
    if rng.random() < 0.5:
        colour = jitter(rng, rng.choice([(220, 150, 90), (120, 160, 210), (190, 110, 110)]))
        px, py, r = rng.choice((0.12, 0.88)), rng.choice((0.14, 0.84)), rng.uniform(0.07, 0.13)
        canvas.ellipse(px, py, r, r, colour)
        canvas.ellipse(px - r * 0.25, py - r * 0.25, r * 0.6, r * 0.55, shade(colour, 1.15))


def rain(canvas: Canvas, time: str) -> None:
    """Paints grey clouds, slanting rain and puddles."""
    rng = canvas.rng
    grey = jitter(rng, (132, 146, 164))
    canvas.gradient([(0, shade(grey, 0.72)), (1, shade(grey, 1.2))], 0, 0.66)
    for _ in range(5):
        cloud(
            canvas, rng.random(), rng.uniform(0.02, 0.13), rng.uniform(0.1, 0.15), shade(grey, rng.uniform(0.62, 0.8))
        )
    canvas.hills(0.62, 0.02, jitter(rng, (110, 136, 110)))
    canvas.hills(0.74, 0.02, jitter(rng, (122, 148, 116)))
    for _ in range(3):
        canvas.ellipse(rng.random(), rng.uniform(0.82, 0.96), 0.13, 0.022, (164, 188, 208))
    for _ in range(60):
        x, y = rng.random(), rng.random()
        canvas.line(x, y, x - 0.02, y + 0.06, (190, 208, 226), 0.005)


def mountains(canvas: Canvas, time: str) -> None:
    """Paints two mountain ranges with snowy peaks behind a green field."""
    rng, horizon = canvas.rng, canvas.rng.uniform(0.58, 0.66)
    sky(canvas, time, horizon)
    for depth, count in ((0.62, 4), (1.0, 3)):
        rock = tint(jitter(rng, shade((104, 118, 146), 1.35 - 0.35 * depth)), time)
        for k in range(count):
            x = (k + rng.uniform(0.2, 0.8)) / count
            top, half = horizon - rng.uniform(0.3, 0.46) * (1.3 - 0.4 * depth), rng.uniform(0.24, 0.34)
            slope = (horizon + 0.03 - top) / half
            canvas.polygon([(x - half, horizon + 0.03), (x + half, horizon + 0.03), (x, top)], rock)
            canvas.polygon([(x, top), (x + half, horizon + 0.03), (x + 0.05, horizon + 0.03)], shade(rock, 0.88))
            edge = ((-0.3, 0.3), (-0.09, 0.21), (0.06, 0.3), (0.3, 0.3))  # of the snow cap, in units of `half`
            cap = [(x, top), *((x + dx * half, top + dy * half * slope) for dx, dy in edge)]
            canvas.polygon(cap, tint((246, 249, 253), time))
    grass = tint(jitter(rng, (116, 166, 98)), time)
    canvas.hills(horizon + 0.02, 0.02, shade(grass, 0.88))
    canvas.hills(horizon + 0.18, 0.02, grass)


def city_street(canvas: Canvas, time: str) -> None:
    """Paints a row of houses with windows, a pavement and a road."""
    rng = canvas.rng
    sky(canvas, time, 0.6)
    x = -0.04
    while x < 1:
        width, top = rng.uniform(0.12, 0.22), rng.uniform(0.1, 0.36)
        wall = tint(
            jitter(
                rng, rng.choice([(198, 132, 112), (170, 160, 176), (210, 184, 140), (136, 156, 180), (186, 150, 170)])
            ),
            time,
        )
        canvas.box(x, top, x + width - 0.006, 0.7, wall)
        pane = (255, 224, 130) if time == "night" else shade(wall, 1.5)
        columns = max(2, round(width / 0.06))
        for row in range(round((0.64 - top) / 0.08)):
            for column in range(columns):
                wx, wy = x + width * (column + 0.28) / columns, top + 0.035 + 0.08 * row
                canvas.box(
                    wx, wy, wx + width * 0.4 / columns, wy + 0.042, pane if rng.random() < 0.8 else shade(wall, 0.7)
                )
        x += width
    canvas.box(0, 0.69, 1, 0.77, tint((196, 196, 196), time))
    canvas.gradient([(0, tint((112, 116, 124), time)), (1, tint((92, 96, 104), time))], 0.765, 1)
    for k in range(4):
        canvas.box(k * 0.28 + 0.04, 0.95, k * 0.28 + 0.18, 0.965, tint((240, 236, 220), time))


def room(canvas: Canvas, time: str) -> None:
    """Paints a wall with a window or a picture frame, a skirting board and a wooden floor."""
    rng = canvas.rng
    wall = jitter(
        rng, rng.choice([(236, 220, 192), (206, 222, 214), (222, 206, 222), (240, 208, 190), (196, 212, 230)])
    )
    canvas.gradient([(0, shade(wall, 0.97)), (1, shade(wall, 1.1))], 0, 0.7)
    x = rng.choice((0.06, 0.64))
    if rng.random() < 0.7:
        canvas.box(x, 0.1, x + 0.3, 0.44, (250, 248, 242))
        canvas.box(x + 0.02, 0.12, x + 0.28, 0.42, (150, 206, 240))
        canvas.box(x + 0.143, 0.12, x + 0.157, 0.42, (250, 248, 242))
        canvas.box(x + 0.02, 0.263, x + 0.28, 0.277, (250, 248, 242))
    else:
        canvas.box(x, 0.12, x + 0.26, 0.34, (150, 106, 70))
        canvas.box(x + 0.02, 0.14, x + 0.24, 0.32, jitter(rng, (200, 214, 180), 30))
    floor = jitter(rng, rng.choice([(190, 140, 96), (170, 124, 88), (206, 162, 116)]))
    canvas.box(0, 0.68, 1, 0.705, (250, 246, 238))
    canvas.gradient([(0, shade(floor, 0.9)), (1, shade(floor, 1.08))], 0.705, 1)
    for k in range(1, 4):
        y = 0.705 + 0.295 * (k / 4) ** 1.3
        canvas.line(0, y, 1, y, shade(floor, 0.84))
    if rng.random() < 0.6:
        canvas.ellipse(0.5, 0.9, 0.42, 0.075, jitter(rng, rng.choice([(196, 92, 86), (90, 130, 160), (214, 190, 130)])))


def table(canvas: Canvas, time: str) -> None:
    """Paints a wooden table top in front of a plain wall."""
    rng = canvas.rng
    wall = jitter(rng, rng.choice([(214, 226, 220), (240, 222, 196), (208, 214, 232), (232, 206, 204)]))
    canvas.gradient([(0, wall), (1, shade(wall, 0.9))], 0, 0.6)
    wood = jitter(rng, rng.choice([(186, 128, 80), (206, 156, 104), (160, 106, 70), (222, 184, 140)]))
    edge = rng.uniform(0.5, 0.58)
    canvas.gradient([(0, shade(wood, 0.92)), (1, shade(wood, 1.12))], edge, 1)
    for k in range(1, 5):
        y = edge + (1 - edge) * (k / 5) ** 1.4
        canvas.line(0, y, 1, y, shade(wood, 0.86), 0.004)
    canvas.box(0, edge - 0.008, 1, edge + 0.008, shade(wood, 1.2))
    if rng.random() < 0.3:
        cloth = jitter(rng, rng.choice([(220, 90, 90), (110, 150, 200), (240, 240, 236)]))
        canvas.ellipse(0.5, 0.86, 0.46, 0.13, cloth)


PAINTERS: dict[str, Callable[[Canvas, str], None]] = {
    "snow": snow, "forest": forest, "beach": beach, "night sky": night_sky, "desert": desert, "meadow": meadow,
    "sunset": sunset, "under the sea": under_the_sea, "outer space": outer_space, "rain": rain,
    "mountains": mountains, "city street": city_street, "room": room, "table": table,
}  # fmt: skip
