"""The facts of a loaded model that a price is made of, for settings whose open fields are filled."""

from __future__ import annotations

from clipgen.families import Conditioning, Family
from clipgen.guidance.backward import is_quantised
from clipgen.guidance.flops import Facts, facts_of
from clipgen.guidance.guide import encoders_of
from clipgen.guidance.latent_gradient import latent_head_for
from clipgen.models.clip_cache import ClipCache
from clipgen.settings.settings import Settings

PRICED_BY = "a picture"  # any prompt: what a budget buys does not depend on it


def facts_for(settings: Settings, family: Family, told: Conditioning, clips: ClipCache, model: str) -> Facts:
    """Returns the facts of a model for the size, CLIPs and guide decoder of settings; `told` as for `facts_of`.

    Raises SettingsError, and what loading a CLIP raises.
    """
    encoders = encoders_of(settings, clips.own, model, clips.load)
    return facts_of(
        family,
        told,
        encoders.guides,
        (settings.width or 0, settings.height or 0),
        settings.guide_decoder or "auto",
        back_propagates=not is_quantised(family.denoiser),
        head=latent_head_for(settings, encoders, family, clips.own),
    )
