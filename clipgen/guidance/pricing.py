"""The facts of a loaded model that a price is made of, for settings whose open fields are filled."""

from __future__ import annotations

from clipgen.families import Conditioning, Family
from clipgen.guidance.flops import ModelCosts, model_costs
from clipgen.guidance.latent_gradient import choose_latent_head
from clipgen.guidance.quantisation import is_quantised
from clipgen.guidance.targets import choose_encoders
from clipgen.models.clip_cache import ClipCache
from clipgen.settings.settings import Settings

PRICED_BY = "a picture"  # any prompt: what a budget buys does not depend on it


def facts_for(settings: Settings, family: Family, told: Conditioning, clips: ClipCache, model: str) -> ModelCosts:
    """Returns the facts of a model for the size, CLIPs and guide decoder of settings; `told` as for `model_costs`.

    Raises SettingsError, and what loading a CLIP raises.
    """
    encoders = choose_encoders(settings, clips.own, model, clips.load)
    return model_costs(
        family,
        told,
        encoders.guides,
        (settings.width or 0, settings.height or 0),
        settings.guide_decoder or "auto",
        back_propagates=not is_quantised(family.denoiser),
        head=choose_latent_head(settings, encoders, family, clips.own),
    )
