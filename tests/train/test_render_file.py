"""Rendering appends to its file, resumes, adds images, and stops at its time limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipgen.errors import ClipgenError
from clipgen.train import render_file
from clipgen.train.data import Renders
from clipgen.train.render_file import RenderFile
from clipgen.world.art import find_package
from clipgen.world.scene import Mix

MIX = Mix(tier=1, kinds=(1, 0, 0))


def drawings_are_missing() -> bool:
    try:
        find_package("flat")
    except ClipgenError:
        return True
    return False


pytestmark = pytest.mark.skipif(drawings_are_missing(), reason="the drawings are not installed")


def pixels(folder: Path, count: int) -> np.ndarray:
    return np.array(Renders.open(RenderFile(folder, mix=MIX, size=32), count).pixels)


def test_an_interrupted_rendering_continues_and_a_larger_count_adds_images(tmp_path: Path) -> None:
    RenderFile(tmp_path / "once", mix=MIX, size=32).fill(20)
    for count in (7, 20):
        RenderFile(tmp_path / "twice", mix=MIX, size=32).fill(count)
        with (tmp_path / "twice" / "renders.u8").open("ab") as file:
            file.write(b"half an image")
    assert (pixels(tmp_path / "once", 20) == pixels(tmp_path / "twice", 20)).all()


def test_worker_processes_render_the_same_images(tmp_path: Path) -> None:
    RenderFile(tmp_path / "one", mix=MIX, size=32).fill(6)
    RenderFile(tmp_path / "two", mix=MIX, size=32).fill(6, processes=2)
    assert (pixels(tmp_path / "one", 6) == pixels(tmp_path / "two", 6)).all()


def test_another_mix_is_rendered_again(tmp_path: Path) -> None:
    RenderFile(tmp_path, mix=MIX, size=32).fill(6)
    before = pixels(tmp_path, 6)
    other = RenderFile(tmp_path, mix=Mix(tier=2), size=32)
    assert len(other) == 0
    other.fill(6)
    assert (np.array(Renders.open(other, 6).pixels) != before).any()


def test_rendering_stops_at_the_minutes_and_logs_its_size_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render_file, "FEWEST", 5)
    lines: list[str] = []
    file = RenderFile(tmp_path, mix=MIX, size=32)
    file.fill(1_000_000, minutes=1e-6, say=lines.append)
    assert len(file) == 5
    assert lines == [f"Rendering 5 scenes of 32 x 32 pixels into '{tmp_path}': 0.0 GB, about 0 min"]
    assert len(Renders.open(file, 1_000_000)) == 5
