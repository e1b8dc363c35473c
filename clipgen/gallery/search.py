"""Pictures found by meaning: a text, a picture, or a sum such as `a fox + snow - forest`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import SettingsError
from clipgen.gallery.index import Index

TERM = re.compile(r"(?:^|\s)([+-])\s+")
SIGNS = {"+": 1.0, "-": -1.0}


@dataclass(frozen=True)
class SearchHit:
    """A picture that was found, and the cosine between it and what was query_features."""

    path: Path
    similarity: float


def parse_query(query: str) -> list[tuple[str, float]]:
    """Returns the texts of a query with their signs; signs stand between blanks, so that `sci-fi` is one word.

    Raises SettingsError for a sign without a text.
    """
    first, *rest = TERM.split(query)
    terms = [(first.strip(), 1.0)] if first.strip() else []
    terms += [(text.strip(), SIGNS[sign]) for sign, text in zip(rest[::2], rest[1::2], strict=True)]
    if not terms or not all(text for text, _ in terms):
        raise SettingsError(
            f"A search is words, or words with ' + ' and ' - ' between them, got '{query}'", field="text"
        )
    return terms


def query_features(encoder: ClipEncoder, terms: Sequence[tuple[str, float]], pictures: Sequence[Tensor] = ()) -> Tensor:
    """Returns the unit vector [D] of a sum of texts and of pictures' own unit vectors."""
    total = sum(pictures, start=encoder.model.logit_scale.new_zeros(()))
    for text, sign in terms:
        total = total + sign * encoder.text_features([text])[0]
    return F.normalize(total, dim=0)


def nearest_images(index: Index, paths: Sequence[Path], vector: Tensor, top: int) -> list[SearchHit]:
    """Returns the pictures that are closest to a unit vector [D], the closest first."""
    known, features = index.features(paths)
    if not known:
        return []
    best = (features @ vector.detach().float().cpu()).topk(min(top, len(known)))
    return [SearchHit(known[place], value) for value, place in zip(*(each.tolist() for each in best), strict=True)]
