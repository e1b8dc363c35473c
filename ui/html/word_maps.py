"""An image with one button per word of its prompt; a pressed word darkens all parts that do not belong to it."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from clipgen.gallery import Explanation

MASK_COLOUR = (16, 12, 8)
MAX_OPACITY = 0.82
SOURCES = {
    "cross-attention": "Where the model placed each word while it generated this picture (cross-attention).",
    "patch similarity": "What CLIP finds similar to each word. This picture was not generated here, so there is no "
    "cross-attention to show.",
}


def word_maps(explanation: Explanation) -> str:
    """Returns the image with a button for each word; page.js shows the mask of the pressed one.

    The word that adds most to the CLIP similarity is pressed at first.
    """
    from clipgen.clip.word_importance import upsample_maps

    width, height = explanation.image.size
    drops = explanation.drops or (None,) * len(explanation.words)
    first = max(range(len(drops)), key=lambda k: drops[k] or 0.0)
    masks = [_mask(each) for each in upsample_maps(explanation.maps, (height, width))]
    buttons = "".join(
        f'<button type="button" class="word" aria-pressed="{str(k == first).lower()}" data-mask="{mask}">'
        f"{escape(word)}{_contribution(drop)}</button>"
        for k, (word, drop, mask) in enumerate(zip(explanation.words, drops, masks, strict=True))
    )
    image = f'<img src="{_data_uri(explanation.image)}" alt="{escape(explanation.text)}">'
    mask = f'<img class="mask" src="{masks[first]}" alt="">'
    return (
        f'<figure class="frame done"><div class="picture masked">{image}{mask}</div>'
        f'<div class="words" role="group" aria-label="Words">{buttons}</div></figure>'
        f'<p class="note words-note">{SOURCES[explanation.source]} The number is how much the word adds to the CLIP '
        "similarity, in hundredths; below 0 means that the picture lacks it.</p>"
    )


def _contribution(drop: float | None) -> str:
    """Returns how much a word adds to the similarity: by how much the similarity drops without it, times 100."""
    if drop is None:
        return ""
    number = round(100 * drop, 1) + 0.0  # -0.0 becomes 0.0
    return f'<span class="{"negative" if number < 0 else "positive"}">{number:+.1f}</span>'


def _mask(heat: Tensor) -> str:
    """Returns a mask that is transparent where the heat map is 1 and dark where it is 0; heat [H, W] in [0, 1]."""
    from PIL import Image

    opacity = ((1 - heat) * MAX_OPACITY * 255).round().byte()
    alpha = Image.frombytes("L", (heat.shape[1], heat.shape[0]), bytes(opacity.flatten().tolist()))
    mask = Image.new("RGBA", alpha.size, (*MASK_COLOUR, 0))
    mask.putalpha(alpha)
    return _data_uri(mask)


def _data_uri(image: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)  # type: ignore[attr-defined]
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
