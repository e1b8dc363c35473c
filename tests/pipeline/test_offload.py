from __future__ import annotations

import pytest
import tiny
from parity import clipgen_images, max_difference

from clipgen import Pipeline
from clipgen.pipeline import offload


@pytest.mark.parametrize("reserve", [0, 2**60])
def test_moving_text_encoders_and_denoiser_changes_nothing(tmp_path, monkeypatch, reserve):
    """On a CPU every move is a no-op; tests/test_cuda.py moves to a card."""
    pipe = Pipeline.from_pretrained(str(tiny.save_flux(tmp_path / "model")))
    expected = clipgen_images(pipe, steps=1)
    monkeypatch.setattr(offload, "RESERVE", reserve)
    pipe.family.text_encoders_wait = True
    assert max_difference(clipgen_images(pipe, "a fox", steps=1), expected) > 0
    pipe._prompts.clear_cache()
    assert max_difference(clipgen_images(pipe, steps=1), expected) == 0
