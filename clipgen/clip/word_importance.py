"""How much each word of a text matters to CLIP: the similarity without it, and a map of where the image matches it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgen.clip.cutouts import crop_squares
from clipgen.clip.encoder import ClipEncoder

WORD = re.compile(r"\w+(?:['’-]\w+)*")
PATCH_SIDE = 0.4  # in units of the image's short side
PATCHES_PER_SIDE = 7  # along the short side; patches overlap
PATCH_BATCH = 32


def word_spans(text: str) -> list[tuple[int, int]]:
    """Returns the start and end index of each word in a text."""
    return [match.span() for match in WORD.finditer(text)]


def remove_span(text: str, span: tuple[int, int]) -> str:
    """Returns a text without the characters of one span, and without a double space in its place."""
    return " ".join(f"{text[: span[0]]} {text[span[1] :]}".split())


def similarity_drops(encoder: ClipEncoder, image: Tensor, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
    """Returns how far the cosine similarity of an image's unit vector [D] and a text falls without each word.

    Above 0: the image shows the word. Below 0: the text fits better without it.
    """
    features = encoder.text_features([text, *(remove_span(text, span) for span in spans)])
    whole, *parts = (features @ image).tolist()
    return [whole - part for part in parts]


@torch.no_grad()
def patch_maps(encoder: ClipEncoder, image: Tensor, words: Sequence[str]) -> Tensor:
    """Returns maps [W, h, w] in [0, 1]: the similarity of each word to each patch of an image [3, H, W]."""
    height, width = image.shape[-2:]
    short = min(height, width)
    side = max(1, round(PATCH_SIDE * short))
    rows, columns = (max(1, round(PATCHES_PER_SIDE * length / short)) for length in (height, width))
    top, left = torch.meshgrid(_starts(height - side, rows), _starts(width - side, columns), indexing="ij")
    squares = torch.stack([left.flatten(), top.flatten(), torch.full_like(left, side).flatten()], dim=1)
    features = [
        encoder.image_features(crop_squares(image, batch, encoder.image_size).clamp(0, 1))
        for batch in squares.split(PATCH_BATCH)
    ]
    similarities = encoder.text_features(words) @ torch.cat(features).T  # [W, rows * columns]
    return normalise_maps(similarities.unflatten(1, (rows, columns)))


def _starts(last: int, count: int) -> Tensor:
    return torch.linspace(0, last, count, dtype=torch.float64)


def normalise_maps(maps: Tensor) -> Tensor:
    """Returns maps [W, h, w] scaled so that each has minimum 0 and maximum 1; a constant map becomes 0."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-9)


def upsample_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns maps [W, h, w] resized to `size` (height, width), in [0, 1]."""
    return F.interpolate(maps[None], size, mode="bicubic", align_corners=False)[0].clamp(0, 1)
