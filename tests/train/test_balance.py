"""Concepts start with equal shares; those that are recognised less often get larger ones."""

from __future__ import annotations

import numpy as np
import pytest

from clipgen.train.balance import LARGEST_FACTOR, ConceptBalance
from clipgen.train.data import Renders
from clipgen.world.scene import Mix

COUNT = 400


@pytest.fixture
def balance() -> ConceptBalance:
    renders = Renders(np.zeros((COUNT, 1, 1, 3), np.uint8), 0, Mix(tier=1, kinds=(1, 0, 0)))
    return ConceptBalance(renders, COUNT, np.random.default_rng(0))


def shares(balance: ConceptBalance) -> dict[str, float]:
    owner = {int(image): concept for concept, images in zip(balance.concepts, balance.images, strict=True)
             for image in images}  # fmt: skip
    concepts = [owner[int(index)] for index in balance(8_000, COUNT)]
    return {concept: concepts.count(concept) / len(concepts) for concept in balance.concepts}


def test_shares_are_equal_for_any_distribution_of_renders(balance: ConceptBalance) -> None:
    measured_shares = [
        share for share, images in zip(shares(balance).values(), balance.images, strict=True) if len(images)
    ]
    assert max(measured_shares) < 2 * min(measured_shares)


def test_an_unrecognised_concept_gets_up_to_four_times_the_share(balance: ConceptBalance) -> None:
    good, bad = balance.concepts[0], balance.concepts[1]
    for _ in range(20):
        balance.update([good, bad], [True, False])
    measured_shares = shares(balance)
    assert measured_shares[bad] / measured_shares[good] == pytest.approx(LARGEST_FACTOR, rel=0.3)
    assert balance.average == pytest.approx(0.5, abs=0.01)


def test_only_stored_images_are_chosen(balance: ConceptBalance) -> None:
    assert balance(500, 40).max() < 40


def test_the_least_measured_concepts_are_due_first(balance: ConceptBalance) -> None:
    first = balance.due(20)
    balance.update(first, [True] * 20)
    assert not set(first) & set(balance.due(20))
