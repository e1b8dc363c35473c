"""The picture that variations are drawn of: its pixels, its weight against the prompt, its file, who can be told it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.decode import read_pixels
from clipgen.errors import SettingsError
from clipgen.families import Family
from clipgen.families.text_encoders import ImageEmbeds
from clipgen.image_file import digest_of
from clipgen.models import Layout
from clipgen.settings.checks import split_target
from clipgen.settings.settings import Note, Settings


@dataclass(frozen=True, eq=False)
class Source:
    """A picture [1, 3, H, W] in [0, 1]; `weight` 1 is the picture alone, 0 the prompt alone; `digest` its SHA-256."""

    pixels: Tensor
    weight: float
    digest: str


@dataclass(frozen=True, eq=False)
class Varied:
    """What a batch varies: the file, what the denoiser is told of it, and its CLIP's vector [D] if it has one."""

    source: Source
    seen: ImageEmbeds
    features: Tensor | None

    @property
    def notes(self) -> list[Note]:
        """What is to be said of it: the words that it is told by."""
        words = self.seen.caption
        return [Note("read-as", "vary", f"The picture is read as '{words}' and drawn anew from that.")] if words else []


@torch.no_grad()
def varied_by(family: Family, source: Source, encoder: ClipEncoder | None) -> Varied:
    """Returns a picture as a model and its own CLIP see it; `check_vary` has been asked."""
    assert family.encode_image is not None, "check_vary has been asked"
    features = None if encoder is None else encoder.image_features(source.pixels)[0]
    return Varied(source, family.encode_image(source.pixels), features)


def read_source(target: str) -> Source:
    """Reads what `vary` names, `picture:weight`; raises ImageFileError."""
    path, weight = split_target(target)
    return Source(read_pixels(path), weight, digest_of(Path(path)))


def check_vary(settings: Settings, model: str, layout: Layout, sees: bool) -> None:
    """Raises SettingsError where a model cannot be told the picture to vary, or draws nothing without one."""
    if settings.vary is None and layout.requires_image:
        raise SettingsError(
            f"model '{model}' draws variations of a picture: clipgen vary IMAGE -m {model}", field="vary"
        )
    if settings.vary is None or sees:
        return
    lacks = (
        f"it brings no {layout.image_networks[-1]}"
        if layout.image_networks
        else f"its family, {layout.family}, reads no picture"
    )
    works = "a prompt with --guidance clip --like IMAGE"
    raise SettingsError(f"model '{model}' draws no variations: {lacks}. What works: {works}", field="vary")
