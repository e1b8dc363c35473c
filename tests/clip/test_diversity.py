from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipgen.clip.diversity import diversity


def test_equal_images_have_a_vendi_score_of_one():
    result = diversity(F.normalize(torch.ones(5, 8), dim=1))
    assert (result.pictures, result.vendi, result.distance) == (5, pytest.approx(1), pytest.approx(0, abs=1e-6))


def test_orthogonal_images_have_a_vendi_score_of_their_number():
    result = diversity(torch.eye(6))
    assert (result.vendi, result.distance) == (pytest.approx(6), pytest.approx(1))


def test_two_pairs_of_equal_images_have_a_vendi_score_of_two():
    result = diversity(torch.eye(4)[[0, 0, 1, 1]])
    assert (result.vendi, result.distance) == (pytest.approx(2), pytest.approx(2 / 3))
