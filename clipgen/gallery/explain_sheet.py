"""Renders an explanation as one image: one tile per word, with its heat map and its similarity drop."""

from __future__ import annotations

from math import ceil

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from clipgen.clip.word_importance import upsample_maps
from clipgen.gallery.explanation import Explanation
from clipgen.pixels import to_image, to_pixels

TILE, LINE, GAP, COLUMNS = 256, 24, 8, 4  # pixels; tiles per row
DIM = 0.25  # brightness where the map is 0
BACKGROUND, TEXT, FAINT_TEXT = (250, 248, 243), (60, 56, 50), (150, 142, 130)
GLOW = (255, 140, 20)


def heat_image(image: Image.Image, heat: Tensor) -> Image.Image:
    """Returns an image that is darkened where a map [h, w] in [0, 1] is low and glows where it is high."""
    pixels = to_pixels(image)
    glow = torch.tensor(GLOW).view(3, 1, 1) / 255
    mask = upsample_maps(heat[None], (image.height, image.width))  # [1, H, W]
    blended = pixels * (DIM + (1 - DIM) * mask) + 0.25 * mask.square() * (glow - pixels)
    return to_image(blended)


def render_sheet(explanation: Explanation) -> Image.Image:
    """Returns the tiles of all words, four per row, each with its word and its similarity drop."""
    image = explanation.image
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    tile = image.resize(size)
    columns = min(COLUMNS, len(explanation.words))
    rows = ceil(len(explanation.words) / columns)
    step_x, step_y = size[0] + GAP, size[1] + LINE + GAP
    canvas = Image.new("RGB", (GAP + columns * step_x, GAP + rows * step_y + LINE), BACKGROUND)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for k, (word, heat) in enumerate(zip(explanation.words, explanation.maps, strict=True)):
        left, top = GAP + (k % columns) * step_x, GAP + (k // columns) * step_y
        canvas.paste(heat_image(tile, heat), (left, top))
        draw.text((left, top + size[1] + 3), word, TEXT, font)
        if explanation.drops is not None:
            draw.text((left + size[0], top + size[1] + 3), f"{explanation.drops[k]:+.3f}", TEXT, font, anchor="ra")
    draw.text((GAP, canvas.height - LINE + 2), f"{explanation.source}", FAINT_TEXT, font)
    return canvas
