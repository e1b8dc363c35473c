"""Image search with CLIP: by a text, by an image, or by a sum such as `a fox + snow - forest`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import SettingsError
from clipgen.gallery.index import ImageIndex

OPERATOR = re.compile(r"(?:^|\s)([+-])\s+")
SIGNS = {"+": 1.0, "-": -1.0}


@dataclass(frozen=True)
class SearchHit:
    """An image that a search returned, with its cosine similarity to the query."""

    path: Path
    similarity: float


def parse_query(query: str) -> list[tuple[str, float]]:
    """Returns the (text, sign) terms of a query; an operator has spaces around it, so that `sci-fi` is one word.

    Raises SettingsError for an operator without a text.
    """
    first, *rest = OPERATOR.split(query)
    terms = [(first.strip(), 1.0)] if first.strip() else []
    terms += [(text.strip(), SIGNS[sign]) for sign, text in zip(rest[::2], rest[1::2], strict=True)]
    if not terms or not all(text for text, _ in terms):
        raise SettingsError(
            f"A search is words, or words with ' + ' and ' - ' between them, got '{query}'", field="text"
        )
    return terms


def query_features(encoder: ClipEncoder, images: Sequence[Tensor], terms: Sequence[tuple[str, float]]) -> Tensor:
    """Returns the unit vector [D] of the sum of image unit vectors [D] and signed text features."""
    total = sum(images, start=encoder.model.logit_scale.new_zeros(()))
    for text, sign in terms:
        total = total + sign * encoder.text_features([text])[0]
    return F.normalize(total, dim=0)


def nearest_images(index: ImageIndex, paths: Sequence[Path], query: Tensor, top: int) -> list[SearchHit]:
    """Returns the `top` images of `paths` that are closest to a unit vector [D], the closest first."""
    indexed, features = index.features(paths)
    if not indexed:
        return []
    best = (features @ query.detach().float().cpu()).topk(min(top, len(indexed)))
    return [
        SearchHit(indexed[row], similarity)
        for similarity, row in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
