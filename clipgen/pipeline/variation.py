"""The image that variations are made of: its pixels, its weight against the prompt, its conditioning."""

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
from clipgen.hashing import sha256_of
from clipgen.models import Layout
from clipgen.settings.checks import split_target
from clipgen.settings.settings import Note, Settings


@dataclass(frozen=True, eq=False)
class SourceImage:
    """An image file to make variations of.

    Attributes:
        pixels: [1, 3, H, W] in [0, 1].
        weight: 0 to 1; 1 = the image alone, 0 = the prompt alone.
        sha256: The SHA-256 of the file.
    """

    pixels: Tensor
    weight: float
    sha256: str


@dataclass(frozen=True, eq=False)
class Variation:
    """A source image as the model encodes it, and its features [D] in the model's own CLIP if there is one."""

    source: SourceImage
    image_embeds: ImageEmbeds
    features: Tensor | None

    @property
    def notes(self) -> tuple[Note, ...]:
        """A note with the caption, if the model conditions on a caption of the image."""
        caption = self.image_embeds.caption
        return (
            (Note("read-as", "vary", f"The variation is generated from this caption: '{caption}'"),) if caption else ()
        )


@torch.no_grad()
def encode_source_image(family: Family, source: SourceImage, encoder: ClipEncoder | None) -> Variation:
    """Encodes a source image for a model that `check_vary` accepts; `encoder` is the model's own CLIP."""
    assert family.encode_image is not None, "check_vary refuses such a model"
    features = None if encoder is None else encoder.image_features(source.pixels)[0]
    return Variation(source, family.encode_image(source.pixels), features)


def read_source_image(target: str) -> SourceImage:
    """Reads the file of the setting `vary`, `file:weight`; raises ImageFileError."""
    path, weight = split_target(target)
    return SourceImage(read_pixels(path), weight, sha256_of(Path(path)))


def check_vary(settings: Settings, model: str, layout: Layout, takes_image: bool) -> None:
    """Raises SettingsError if the model cannot make variations of an image, or makes nothing else.

    `takes_image` = the loaded model can be conditioned on an image.
    """
    if settings.vary is None and layout.requires_image:
        raise SettingsError(
            f"model '{model}' only makes variations of an image: clipgen vary IMAGE -m {model}", field="vary"
        )
    if settings.vary is None or takes_image:
        return
    if layout.image_networks:
        reason = f"it has no {layout.image_networks[-1]}"
    else:
        reason = f"its family, {layout.family}, takes no image"
    works = "a prompt with --guidance clip --like IMAGE"
    raise SettingsError(f"model '{model}' cannot make variations: {reason}. What works: {works}", field="vary")
