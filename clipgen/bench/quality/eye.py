"""Scenes through CLIP's eye: rendered, seen, forgotten but for their unit vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from PIL.Image import Image
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.gallery.features import iter_image_features
from clipgen.world.render import render
from clipgen.world.scene import Scene

LARGEST = 256  # pixels; the drawings hold no more


class Eye:
    """One CLIP that looks at renders, of its own size where the drawings hold as much."""

    def __init__(self, encoder: ClipEncoder) -> None:
        self.encoder = encoder
        self.side = min(encoder.image_size, LARGEST)

    def images(self, scenes: Sequence[Scene]) -> Tensor:
        """Returns the unit vectors [N, D] of scenes."""
        return self.pictures(render(scene, self.side) for scene in scenes)

    def pictures(self, pictures: Iterable[Image]) -> Tensor:
        """Returns the unit vectors [N, D] of RGB pictures, which are asked for a few at a time."""
        return torch.stack(
            [features for _, features in iter_image_features(self.encoder, ((None, each) for each in pictures))]
        )

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Returns the unit vectors [N, D] of texts."""
        return self.encoder.text_features(texts)
