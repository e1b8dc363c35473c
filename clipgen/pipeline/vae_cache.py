"""The family of a pipeline with another VAE, as the setting `vae` names it."""

from __future__ import annotations

import copy
from functools import lru_cache

import torch

from clipgen.families import FAMILIES, Family
from clipgen.models.find import find_vae
from clipgen.models.load_vae import check_vae, load_vae

MAX_CACHED = 2  # loaded VAEs


class VaeCache:
    """Loads VAEs by name. `family` returns a copy of the family with one of them, and the SHA-256 of its weights.

    The copies share denoiser and text encoders with the original, so that threads with different VAEs can share a
    pipeline.
    """

    def __init__(self, family: Family, model: str, device: torch.device, dtype: torch.dtype, offline: bool) -> None:
        self._family, self._model = family, model
        self._device, self._dtype, self._offline = device, dtype, offline
        self.family = lru_cache(MAX_CACHED)(self._load)

    def _load(self, name: str) -> tuple[Family, str]:
        """Loads one VAE; raises SettingsError, ModelNotFound, ModelError and OutOfMemory."""
        source = find_vae(name, offline=self._offline)
        layout, _ = FAMILIES[self._family.name]
        network = check_vae(source, layout, self._family.vae, self._model)
        family = copy.copy(self._family)
        family.vae = load_vae(name, network, self._device, self._dtype).to(memory_format=torch.channels_last)
        return family, source.hash
