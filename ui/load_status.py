"""How far the loading of a model has progressed, in percent: first its Python libraries, then its weights."""

from __future__ import annotations

import sys
from collections.abc import Callable


def _torch() -> object:
    import torch

    return torch


def _transformers() -> object:
    import transformers

    return transformers


def _diffusers() -> object:
    import diffusers

    return diffusers


def _clip() -> object:
    from transformers.models.clip import modeling_clip

    return modeling_clip


def _pipeline() -> object:
    from clipgen.pipeline import pipeline

    return pipeline


# The slow imports in order, each with the percentage reached after it. The shares are measured import times.
LIBRARIES: tuple[tuple[str, Callable[[], object], int], ...] = (
    ("torch", _torch, 25),
    ("transformers", _transformers, 36),
    ("diffusers", _diffusers, 60),
    ("transformers.models.clip.modeling_clip", _clip, 74),
    ("clipgen.pipeline.pipeline", _pipeline, 80),
)


class LoadStatus:
    """The progress of loading one model. The loading thread updates it; any thread may read `percent`."""

    def __init__(self) -> None:
        self.percent = 0
        self._percent_before_weights = 0

    def import_libraries(self) -> None:
        """Imports the libraries that a model needs; those that are imported already do not count."""
        for name, load, percent in LIBRARIES:
            if name not in sys.modules:
                _import(load)
                self.percent = self._percent_before_weights = percent

    def update_weights(self, done: int, total: int) -> None:
        """Sets how many bytes of the weights are loaded. The last byte gives 99%, the finished pipeline 100%."""
        start = self._percent_before_weights
        self.percent = start + (99 - start) * done // total


def _import(load: Callable[[], object]) -> None:
    if load is _torch:
        load()
        return
    from clipgen.device import collection_off, set_library_switches

    set_library_switches()
    with collection_off():
        load()
