"""The results of the CLIP tasks: labels with probabilities, ranked images, and a caption."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from . import output_panel

if TYPE_CHECKING:
    from clipgen.clip.classify import Classification
    from clipgen.gallery import RankedImage

MAX_ROWS = 10


def labels(guesses: list[Classification]) -> str:
    """Returns the ten most probable labels as bars, the most probable first."""
    rows = "".join(
        f"<tr><th>{escape(guess.label)}</th>"
        f'<td><div class="meter"><i style="width:{100 * guess.probability:.1f}%"></i></div></td>'
        f"<td>{100 * guess.probability:.1f}%</td></tr>"
        for guess in guesses[:MAX_ROWS]
    )
    note = "The percentages add up to 100 over your labels: CLIP chooses among these and considers no others."
    return f'<table class="labels"><tbody>{rows}</tbody></table><p class="note">{note}</p>'


def ranking(images: list[RankedImage]) -> str:
    """Returns ranked images with their scores, the best first."""
    items = "".join(
        f'<li><img src="{output_panel.image_url(str(image.image))}" alt="Picture {image.index + 1}">'
        f"<div><b>{escape(Path(str(image.image)).name)}</b>{output_panel.score(image.score.to_dict())}</div></li>"
        for image in images
    )
    return f'<ol class="ranked">{items}</ol>'


def caption(text: str) -> str:
    """Returns the caption of an image."""
    return f'<p class="caption">{escape(text)}</p><p class="note">Written by a captioning model. It may be wrong.</p>'
