"""The CLIP models of a pipeline: the one that belongs to the model, and others loaded by name, each loaded once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from clipgen import home
from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.prompt_check import PromptChecker
from clipgen.clip.score import Scorer, read_captions
from clipgen.errors import OutOfMemory
from clipgen.models.find import default_clip, find_clip
from clipgen.models.ids import weights_hash
from clipgen.models.load_clip import load_encoder

MAX_CACHED = 4  # loaded CLIP models


class ClipCache:
    """The scorer of the model's own CLIP (None if it has none), and a cache of other CLIPs.

    `load` returns a CLIP by folder or hub id, `checker` the prompt checker of a scorer; with `offline` nothing is
    downloaded.
    """

    def __init__(self, own: Scorer | None, device: torch.device, offline: bool = False) -> None:
        self._own_scorer = own
        self.device, self.offline = device, offline
        self.load = lru_cache(MAX_CACHED)(self._load)
        self._scorer = lru_cache(MAX_CACHED)(self._load_scorer)
        self.checker = lru_cache(MAX_CACHED)(PromptChecker)

    @property
    def own(self) -> ClipEncoder | None:
        """The model's own CLIP."""
        return None if self._own_scorer is None else self._own_scorer.encoder

    def scorer(self, clip_models: Sequence[str] = ()) -> Scorer | None:
        """Returns the CLIP that scores; raises the errors of loading it.

        It is the model's own CLIP. A model without one is scored by the first of `clip_models`, the setting, else by
        a default CLIP that is on this machine, else not at all (None).
        """
        if self._own_scorer is not None:
            return self._own_scorer
        name = next(iter(clip_models), None) or default_clip()
        return None if name is None else self._scorer(name)

    def _load(self, name: str) -> ClipEncoder:
        """Loads a CLIP; returns the model's own one if `name` is another name of it."""
        if self._own_scorer is not None and self._is_own(name):
            return self._own_scorer.encoder
        return load_encoder(name, self.device, offline=self.offline)

    def _load_scorer(self, name: str) -> Scorer:
        """Loads the scorer of a CLIP, on the CPU if the device has no memory for it."""
        try:
            encoder = self.load(name)
        except OutOfMemory:
            encoder = load_encoder(name, torch.device("cpu"), offline=self.offline)
        folder = find_clip(name, offline=True).path
        return Scorer(encoder, read_captions(), folder, home.data_dir() / "captions" / weights_hash(folder))

    def _is_own(self, name: str) -> bool:
        own = self._own_scorer
        folder = find_clip(name, offline=self.offline).path.resolve()
        return own is not None and own.folder is not None and folder == own.folder.resolve()
