"""How much of a model is loaded, in percent: first the libraries it needs, then the bytes of its weights."""

from __future__ import annotations

import sys
from importlib import import_module

# The slow imports in running order, each with the percentage that is reached once it is done: their measured shares.
LIBRARIES = (
    ("torch", 25),
    ("transformers", 36),
    ("diffusers", 60),
    ("transformers.models.clip.modeling_clip", 74),
    ("clipgen.pipeline", 80),
)


class Progress:
    """How far the loading of one model has got; the thread that loads it tells, everybody may ask."""

    def __init__(self) -> None:
        self.percent = 0
        self._weights_from = 0

    def libraries(self) -> None:
        """Imports what a model needs; libraries that are here already count for nothing."""
        for name, reached in LIBRARIES:
            if name not in sys.modules:
                _import(name)
                self.percent = self._weights_from = reached

    def filling(self, done: int, total: int) -> None:
        """Takes how many bytes of the weights are in place; with the last of them it is 99, with the model 100."""
        self.percent = self._weights_from + (99 - self._weights_from) * done // total


def _import(name: str) -> None:
    if name == "torch":
        import_module(name)
        return
    from clipgen.device import collection_off, set_library_switches

    set_library_switches()
    with collection_off():
        import_module(name)
