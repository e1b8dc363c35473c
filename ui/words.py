"""A picture word by word: press one and the part that belongs to it stays bright."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from clipgen.gallery import Explanation

NIGHT = (16, 12, 8)  # what lies over the parts that a word has nothing to do with
DARKEST = 0.82
SOURCES = {
    "cross-attention": "Where the model looked for the word while it drew this picture.",
    "patch similarity": "What looks like the word to CLIP. It did not draw this picture, so it cannot say more.",
}


def told(found: Explanation) -> str:
    """Returns the picture with a button for each word, in HTML; the page's script swaps what lies over it."""
    from clipgen.clip.word_importance import upsample_maps

    width, height = found.image.size
    drops = found.drops or (None,) * len(found.words)
    first = max(range(len(drops)), key=lambda k: drops[k] or 0.0)  # the word that adds most
    maps = upsample_maps(found.maps, (height, width))
    buttons = "".join(
        f'<button type="button" class="word" aria-pressed="{str(k == first).lower()}" data-veil="{_veil(each)}">'
        f"{escape(word)}{_drop(drop)}</button>"
        for k, (word, drop, each) in enumerate(zip(found.words, drops, maps, strict=True))
    )
    picture = f'<img src="{_uri(found.image)}" alt="{escape(found.text)}">'
    veil = f'<img class="veil" src="{_veil(maps[first])}" alt="">'
    return (
        f'<figure class="frame done"><div class="picture veiled">{picture}{veil}</div>'
        f'<div class="words" role="group" aria-label="Words">{buttons}</div></figure>'
        f'<p class="note words-note">{SOURCES[found.source]} The number is what the word adds to the similarity, in '
        "hundredths: below 0, the picture lacks it.</p>"
    )


def _drop(drop: float | None) -> str:
    return "" if drop is None else f'<span class="{"lacks" if drop < 0 else "adds"}">{100 * drop:+.1f}</span>'


def _veil(heat: Tensor) -> str:
    """Returns what lies over the picture, dark where it has nothing to do with the word; heat [H, W] in [0, 1]."""
    from PIL import Image

    dark = ((1 - heat) * DARKEST * 255).round().byte()
    mask = Image.frombytes("L", (heat.shape[1], heat.shape[0]), bytes(dark.flatten().tolist()))
    veil = Image.new("RGBA", mask.size, (*NIGHT, 0))
    veil.putalpha(mask)
    return _uri(veil)


def _uri(image: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)  # type: ignore[attr-defined]
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
