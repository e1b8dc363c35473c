"""The Settings fields as types of keyword arguments, so that editors complete and check them."""

from __future__ import annotations

from typing import Literal, TypedDict


class SettingsKeywords(TypedDict, total=False):
    """Every field of Settings but `prompt`; see Settings for their meaning, defaults and limits."""

    negative_prompt: str
    prompt_syntax: Literal["a1111", "plain"]
    long_prompt: Literal["cut", "chunk", "error"]
    prompt_template: str | None
    model: str
    preset: str | None
    vae: str | None
    seed: int | None
    images: int
    steps: int | None
    width: int | None
    height: int | None
    scheduler: str | None
    guidance_scale: float | None
    eta: float | None
    cfg_start: float
    cfg_stop: float
    guidance_rescale: float
    apg: bool
    clip_skip: int
    lora: tuple[str, ...]
    embedding: tuple[str, ...]
    guidance: str
    budget: float | None
    clip_guidance_scale: float
    cutouts: int | None
    guidance_start: float
    guidance_stop: float
    guidance_every: int | None
    through_unet: bool
    guide_decoder: str | None
    candidates: int
    particles: int
    iterations: int
    guard: str
    guide: tuple[str, ...]
    like: tuple[str, ...]
    clip_models: tuple[str, ...]
    vary: str | None


class VaryKeywords(SettingsKeywords, total=False):
    """Every field of Settings; `vary` takes the image itself as its first argument."""

    prompt: str
