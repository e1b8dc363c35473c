"""A contact sheet: pictures in a grid, each with a line of text below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont


def contact_sheet(pictures: Sequence[Image.Image], labels: Sequence[str] = (), columns: int = 8) -> Image.Image:
    """Lays pictures of one size out in rows, with up to two lines of caption below each when labels are given."""
    width, height = pictures[0].size
    pad, text = 6, 26 if labels else 0
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + pad) + pad, rows * (height + text + pad) + pad), (250, 248, 243))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for k, picture in enumerate(pictures):
        x, y = pad + (k % columns) * (width + pad), pad + (k // columns) * (height + text + pad)
        sheet.paste(picture, (x, y))
        if labels:
            lines = textwrap.wrap(labels[k], max(8, width // 5))[:2]
            draw.multiline_text((x, y + height + 1), "\n".join(lines), fill=(60, 56, 50), font=font, spacing=1)
    return sheet
