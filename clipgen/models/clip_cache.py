"""The CLIPs at hand: the one that a model brings, and those that settings name, each loaded once."""

from __future__ import annotations

from functools import lru_cache

import torch

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.prompt_check import PromptChecker
from clipgen.clip.score import Scorer
from clipgen.models.find import find_clip
from clipgen.models.load_clip import load_encoder

KEPT = 4  # loaded CLIPs


class ClipCache:
    """The `scorer` and `prompt_checker` of the model's own CLIP (None if it brings none), and CLIPs loaded by name.

    `load` returns a CLIP by folder or hub id, and keeps the last ones; `offline` = none is fetched.
    """

    def __init__(self, scorer: Scorer | None, device: torch.device, offline: bool = False) -> None:
        self.scorer = scorer
        self.prompt_checker = None if scorer is None else PromptChecker(scorer)
        self.device, self.offline = device, offline
        self.load = lru_cache(KEPT)(self._load)

    @property
    def own(self) -> ClipEncoder | None:
        """The model's own."""
        return None if self.scorer is None else self.scorer.encoder

    def _load(self, name: str) -> ClipEncoder:
        """Loads a CLIP by folder or hub id, but the model's own only once, whatever it is called."""
        folder = find_clip(name, offline=self.offline).path.resolve()
        if self.scorer is not None and self.scorer.folder is not None and folder == self.scorer.folder.resolve():
            return self.scorer.encoder
        return load_encoder(name, self.device, offline=self.offline)
