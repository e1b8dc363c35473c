"""The CLIP models of a pipeline: the one that belongs to the model, and others loaded by name, each loaded once."""

from __future__ import annotations

from functools import lru_cache

import torch

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.prompt_check import PromptChecker
from clipgen.clip.score import Scorer
from clipgen.models.find import find_clip
from clipgen.models.load_clip import load_encoder

MAX_CACHED = 4  # loaded CLIP models


class ClipCache:
    """The scorer and prompt checker of the model's own CLIP (None if it has none), and a cache of other CLIPs.

    `load` returns a CLIP by folder or hub id; with `offline` nothing is downloaded.
    """

    def __init__(self, scorer: Scorer | None, device: torch.device, offline: bool = False) -> None:
        self.scorer = scorer
        self.prompt_checker = None if scorer is None else PromptChecker(scorer)
        self.device, self.offline = device, offline
        self.load = lru_cache(MAX_CACHED)(self._load)

    @property
    def own(self) -> ClipEncoder | None:
        """The model's own CLIP."""
        return None if self.scorer is None else self.scorer.encoder

    def _load(self, name: str) -> ClipEncoder:
        """Loads a CLIP; returns the model's own one if `name` is another name of it."""
        folder = find_clip(name, offline=self.offline).path.resolve()
        if self.scorer is not None and self.scorer.folder is not None and folder == self.scorer.folder.resolve():
            return self.scorer.encoder
        return load_encoder(name, self.device, offline=self.offline)
