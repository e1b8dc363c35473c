"""Encodes rendered scenes and texts with CLIP, in batches, without keeping the images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from PIL.Image import Image
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.gallery.features import iter_image_features
from clipgen.world.render import render
from clipgen.world.scene import Scene

MAX_SIDE = 256  # pixels; the drawings have no higher resolution


class SceneEncoder:
    """A CLIP with a renderer in front: scenes are rendered at CLIP's input size, at most MAX_SIDE."""

    def __init__(self, encoder: ClipEncoder) -> None:
        self.encoder = encoder
        self.side = min(encoder.image_size, MAX_SIDE)

    def scene_features(self, scenes: Sequence[Scene]) -> Tensor:
        """Returns the unit-length image features [N, D] of rendered scenes."""
        return self.image_features(render(scene, self.side) for scene in scenes)

    def image_features(self, images: Iterable[Image]) -> Tensor:
        """Returns the unit-length image features [N, D] of RGB images, read lazily one batch at a time."""
        pairs = ((None, image) for image in images)
        return torch.stack([features for _, features in iter_image_features(self.encoder, pairs)])

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Returns the unit-length text features [N, D]."""
        return self.encoder.text_features(texts)
