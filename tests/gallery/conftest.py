"""Fixtures: two images that storybook generated, and its CLIP."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipgen import Pipeline, Settings, load_clip
from clipgen.clip.score import Scorer

FOX, CAR = "a fox in snow", "a red car in the city"
STEPS = 12


@pytest.fixture(scope="session")
def storybook() -> Pipeline:
    return Pipeline.from_pretrained("storybook")


@pytest.fixture(scope="session")
def generated(storybook: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("generated")
    results = {text: storybook.run(Settings(prompt=text, seed=7, steps=STEPS))[0] for text in (FOX, CAR)}
    return {text: result.save(folder / f"{k}.png") for k, (text, result) in enumerate(results.items())}


@pytest.fixture(scope="session")
def clip() -> Scorer:
    return load_clip("storybook")
