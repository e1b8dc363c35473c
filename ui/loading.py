"""How much of a model is loaded, in percent: first the libraries it needs, then the bytes of its weights."""

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


# The slow imports in running order, each with the percentage that is reached once it is done: their measured shares.
LIBRARIES: tuple[tuple[str, Callable[[], object], int], ...] = (
    ("torch", _torch, 25),
    ("transformers", _transformers, 36),
    ("diffusers", _diffusers, 60),
    ("transformers.models.clip.modeling_clip", _clip, 74),
    ("clipgen.pipeline.pipeline", _pipeline, 80),
)


class Progress:
    """How far the loading of one model has got; the thread that loads it tells, everybody may ask."""

    def __init__(self) -> None:
        self.percent = 0
        self._weights_from = 0

    def libraries(self) -> None:
        """Imports what a model needs; libraries that are here already count for nothing."""
        for name, load, reached in LIBRARIES:
            if name not in sys.modules:
                _import(load)
                self.percent = self._weights_from = reached

    def filling(self, done: int, total: int) -> None:
        """Takes how many bytes of the weights are in place; with the last of them it is 99, with the model 100."""
        self.percent = self._weights_from + (99 - self._weights_from) * done // total


def _import(load: Callable[[], object]) -> None:
    if load is _torch:
        load()
        return
    from clipgen.device import collection_off, set_library_switches

    set_library_switches()
    with collection_off():
        load()
