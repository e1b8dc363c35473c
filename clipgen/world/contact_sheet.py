"""Contact sheets: images in a grid, each with its text below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from clipgen.world.concepts import Concept
from clipgen.world.drawings import drawing_image

PAPER = (250, 248, 243)
INK = (60, 56, 50)


def contact_sheet(images: Sequence[Image.Image], labels: Sequence[str] = (), columns: int = 8) -> Image.Image:
    """Returns images of one size in a grid, row by row.

    Args:
        images: The images, all of the size of the first.
        labels: A text per image, printed below it on up to two lines. Empty for a sheet without text.
        columns: Number of images per row.
    """
    width, height = images[0].size
    pad, text = 6, 26 if labels else 0
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + pad) + pad, rows * (height + text + pad) + pad), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for k, image in enumerate(images):
        x, y = pad + (k % columns) * (width + pad), pad + (k // columns) * (height + text + pad)
        sheet.paste(image, (x, y))
        if labels:
            lines = textwrap.wrap(labels[k], max(8, width // 5))[:2]
            draw.multiline_text((x, y + height + 1), "\n".join(lines), fill=INK, font=font, spacing=1)
    return sheet


def concept_sheet(concepts: Sequence[Concept], art: str = "flat", side: int = 96, columns: int = 20) -> Image.Image:
    """Returns a sheet with the first drawing of each concept on white and the concept's name below it.

    Args:
        concepts: The concepts to draw.
        art: The set of drawings: "flat", "3d" or "noto".
        side: Side of a drawing's cell in pixels.
        columns: Number of concepts per row.
    """
    images = [_on_white(drawing_image(concept.drawings[0], art), side) for concept in concepts]
    return contact_sheet(images, [concept.name for concept in concepts], columns)


def _on_white(drawing: Image.Image, side: int) -> Image.Image:
    """Returns an RGBA drawing in the middle of a white square of `side` pixels."""
    square = Image.new("RGB", (side, side), "white")
    fitted = ImageOps.contain(drawing, (side - 8, side - 8))
    square.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2), fitted)
    return square
