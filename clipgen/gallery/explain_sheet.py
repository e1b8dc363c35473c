"""An explanation as one picture: a tile a word, what it lights up, and what it is worth."""

from __future__ import annotations

from math import ceil

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from clipgen.clip.word_importance import upsample_maps
from clipgen.gallery.explanation import Explanation
from clipgen.gallery.features import image_to_pixels

TILE, LINE, GAP, COLUMNS = 256, 24, 8, 4  # pixels; tiles in a row
DARK = 0.25  # how bright a place without heat stays
PAPER, INK, FAINT = (250, 248, 243), (60, 56, 50), (150, 142, 130)
GLOW = (255, 140, 20)


def heat_picture(image: Image.Image, heat: Tensor) -> Image.Image:
    """Returns a picture darkened where its heat map [h, w] in [0, 1] is low, and glowing where it is high."""
    pixels = image_to_pixels(image)
    glow = torch.tensor(GLOW).view(3, 1, 1) / 255
    hot = upsample_maps(heat[None], (image.height, image.width))
    lit = pixels * (DARK + (1 - DARK) * hot) + 0.25 * hot.square() * (glow - pixels)
    levels = (lit.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def sheet(explanation: Explanation) -> Image.Image:
    """Returns the tiles of all words, four in a row, each with its word and the similarity it adds."""
    image = explanation.image
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    large = image.resize(size)
    count = len(explanation.words)
    columns = min(COLUMNS, count)
    rows = ceil(count / columns)
    wide, high = size[0] + GAP, size[1] + LINE + GAP
    canvas = Image.new("RGB", (GAP + columns * wide, GAP + rows * high + LINE), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for k, (word, heat) in enumerate(zip(explanation.words, explanation.maps, strict=True)):
        left, top = GAP + (k % columns) * wide, GAP + (k // columns) * high
        canvas.paste(heat_picture(large, heat), (left, top))
        draw.text((left, top + size[1] + 3), word, INK, font)
        if explanation.drops is not None:
            draw.text((left + size[0], top + size[1] + 3), f"{explanation.drops[k]:+.3f}", INK, font, anchor="ra")
    draw.text((GAP, canvas.height - LINE + 2), f"{explanation.source}", FAINT, font)
    return canvas
