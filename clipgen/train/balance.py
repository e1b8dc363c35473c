"""Which images the denoiser is trained on: every concept equally often, then more of those that it draws badly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clipgen.train.data import Renders

LARGEST_FACTOR = 4.0  # a concept that is never recognised is shown this much more often than one that always is
MEMORY = 0.6  # weight of earlier measurements of a concept


class ConceptBalance:
    """Chooses stored images so that their first concepts have given shares.

    `weights` follow how often CLIP recognised each concept; before the first measurement they are equal.
    """

    def __init__(self, renders: Renders, count: int, rng: np.random.Generator) -> None:
        self.rng, self.concepts = rng, renders.mix.names
        place = {concept: k for k, concept in enumerate(self.concepts)}
        first = np.array([place[renders.scene(i).things[0].concept] for i in range(count)])
        self.images = [np.flatnonzero(first == k) for k in range(len(self.concepts))]
        self.recognised = np.full(len(self.concepts), 0.5)
        self.measured = np.zeros(len(self.concepts), np.int64)

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """Share of each concept, of sum 1."""
        weights = 1 + (LARGEST_FACTOR - 1) * (1 - self.recognised)
        shares: npt.NDArray[np.float64] = weights / weights.sum()
        return shares

    @property
    def average(self) -> float:
        """Mean share of recognised samples over the concepts that were measured."""
        measured = self.measured > 0
        return float(self.recognised[measured].mean()) if measured.any() else 0.0

    def __call__(self, size: int, stored: int) -> npt.NDArray[np.int64]:
        """Returns `size` indices below `stored`; a concept of which nothing is stored yet gives its turn away."""
        chosen: list[int] = []
        while len(chosen) < size:
            for concept in self.rng.choice(len(self.concepts), size - len(chosen), p=self.weights):
                available = int(np.searchsorted(self.images[concept], stored))
                if available:
                    chosen.append(int(self.images[concept][self.rng.integers(available)]))
        return np.array(chosen)

    def due(self, count: int) -> list[str]:
        """Returns the concepts that were measured least often."""
        order = np.argsort(self.measured + self.rng.random(len(self.concepts)))
        return [self.concepts[k] for k in order[:count]]

    def update(self, concepts: Sequence[str], recognised: Sequence[bool]) -> None:
        """Takes in whether samples of some concepts were recognised."""
        for concept, right in zip(concepts, recognised, strict=True):
            k = self.concepts.index(concept)
            self.recognised[k] = MEMORY * self.recognised[k] + (1 - MEMORY) * right
            self.measured[k] += 1
