"""How different pictures of one prompt are to CLIP."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST = 4  # pictures from which it is worth telling


@dataclass(frozen=True)
class Diversity:
    """`vendi` = how many pictures that share nothing are as diverse, 1 to `pictures`; `distance` = mean 1 - cosine."""

    pictures: int
    vendi: float
    distance: float


def diversity(features: Tensor) -> Diversity:
    """Returns the diversity of two or more pictures' unit vectors [I, D].

    The Vendi score is exp of the entropy of the eigenvalues of K / I, K the cosines: Friedman and Dieng 2023 (arXiv
    2210.02410, equation 2).
    """
    count = len(features)
    cosines = features.double() @ features.double().T
    shares = torch.linalg.eigvalsh(cosines / count).clamp(min=0)
    entropy = -torch.special.xlogy(shares, shares).sum()
    distance = (1 - cosines).sum() / (count * (count - 1))  # of a picture to itself it is 0
    return Diversity(count, float(entropy.exp()), float(distance))
