"""How different the images of one prompt are, measured in CLIP's feature space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST = 4  # images; with fewer the Vendi score means little, so it is not reported


@dataclass(frozen=True)
class Diversity:
    """The diversity of `pictures` images.

    `vendi` is the effective number of distinct images, 1 to `pictures`; `distance` the mean of 1 - cosine over pairs.
    """

    pictures: int
    vendi: float
    distance: float


def diversity(image_features: Tensor) -> Diversity:
    """Returns the diversity of two or more images, given their unit vectors [I, D].

    Vendi score: exp of the Shannon entropy of the eigenvalues of K / I, where K holds the cosines (Friedman and
    Dieng 2023, arXiv 2210.02410, equation 2).
    """
    count = len(image_features)
    cosines = image_features.double() @ image_features.double().T
    eigenvalues = torch.linalg.eigvalsh(cosines / count).clamp(min=0)
    entropy = -torch.special.xlogy(eigenvalues, eigenvalues).sum()
    distance = (1 - cosines).sum() / (count * (count - 1))  # the diagonal adds 0
    return Diversity(count, float(entropy.exp()), float(distance))
