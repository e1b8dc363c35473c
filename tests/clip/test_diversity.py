from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipgen.clip.diversity import diversity


def test_equal_pictures_are_one():
    found = diversity(F.normalize(torch.ones(5, 8), dim=1))
    assert (found.pictures, found.vendi, found.distance) == (5, pytest.approx(1), pytest.approx(0, abs=1e-6))


def test_pictures_that_share_nothing_are_as_many_as_they_are():
    found = diversity(torch.eye(6))
    assert (found.vendi, found.distance) == (pytest.approx(6), pytest.approx(1))


def test_two_pairs_are_two():
    found = diversity(torch.eye(4)[[0, 0, 1, 1]])
    assert (found.vendi, found.distance) == (pytest.approx(2), pytest.approx(2 / 3))
