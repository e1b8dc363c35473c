"""Words and a picture, one by one: what leaving a word out changes, and which patches look like it to CLIP."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.views import cut

WORD = re.compile(r"\w+(?:['’-]\w+)*")
PATCH = 0.4  # of the picture's short side
ALONG = 7  # patches along the short side, overlapping
PATCHES_AT_ONCE = 32


def word_spans(text: str) -> list[tuple[int, int]]:
    """Returns where each word of a text starts and ends."""
    return [match.span() for match in WORD.finditer(text)]


def without(text: str, span: tuple[int, int]) -> str:
    """Returns a text without one stretch of it, and without the gap that leaves."""
    return " ".join(f"{text[: span[0]]} {text[span[1] :]}".split())


def similarity_drops(encoder: ClipEncoder, image: Tensor, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
    """Returns how far the cosine of a picture's unit vector [D] and a text falls when each word is left out.

    Above 0: the picture shows it. Below 0: without the word the text fits better, as the picture lacks it.
    """
    words = encoder.text_features([text, *(without(text, span) for span in spans)])
    whole, *parts = (words @ image).tolist()
    return [whole - part for part in parts]


@torch.no_grad()
def patch_maps(encoder: ClipEncoder, picture: Tensor, words: Sequence[str]) -> Tensor:
    """Returns maps [W, h, w] in [0, 1]: how close each patch of a picture [3, H, W], seen alone, is to each word."""
    height, width = picture.shape[-2:]
    side = max(1, round(PATCH * min(height, width)))
    rows, columns = (max(1, round(ALONG * length / min(height, width))) for length in (height, width))
    top, left = torch.meshgrid(_starts(height - side, rows), _starts(width - side, columns), indexing="ij")
    squares = torch.stack([left.flatten(), top.flatten(), torch.full_like(left, side).flatten()], dim=1)
    features = [
        encoder.image_features(cut(picture, part, encoder.image_size).clamp(0, 1))
        for part in squares.split(PATCHES_AT_ONCE)
    ]
    found = encoder.text_features(words) @ torch.cat(features).T  # [W, rows * columns]
    return normalise_maps(found.unflatten(1, (rows, columns)))


def _starts(room: int, count: int) -> Tensor:
    return torch.linspace(0, room, count, dtype=torch.float64)


def normalise_maps(maps: Tensor) -> Tensor:
    """Returns maps [W, h, w] with the lowest place of each at 0 and its highest at 1; a flat one is 0."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-9)


def upsample_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns maps [W, h, w] enlarged to a height and width, in [0, 1]."""
    return F.interpolate(maps[None], size, mode="bicubic", align_corners=False)[0].clamp(0, 1)
