"""CLIP features and captions of many images, computed in batches so that memory use does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import TypeVar

import torch
from PIL.Image import Image
from torch import Tensor

from clipgen.captioning.clip_captioner import Captioner
from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import ImageFileError
from clipgen.image_file import open_image

BATCH = 32
CAPTION_BATCH = 8
Key = TypeVar("Key")
OnError = Callable[[Path, ImageFileError], None]


def open_images(paths: Iterable[Path], on_error: OnError) -> Iterator[tuple[Path, Image]]:
    """Yields each path with its opened image, one at a time; calls `on_error` for files that cannot be opened."""
    for path in paths:
        try:
            image = open_image(path)
        except ImageFileError as error:
            on_error(path, error)
        else:
            yield path, image


@torch.no_grad()
def iter_image_features(
    encoder: ClipEncoder, images: Iterable[tuple[Key, Image | Tensor]]
) -> Iterator[tuple[Key, Tensor]]:
    """Yields each key with the unit vector [D] of its image, in order.

    An image is an RGB PIL image or a tensor [3, H, W] in [0, 1].
    """
    resized = ((key, image if isinstance(image, Tensor) else encoder.to_pixels(image)) for key, image in images)
    while batch := list(islice(resized, BATCH)):
        for _, same_shape in groupby(batch, key=lambda pair: pair[1].shape):
            keys, pixels = zip(*same_shape, strict=True)
            yield from zip(keys, encoder.image_features(torch.stack(pixels)), strict=True)


def iter_captions(captioner: Captioner, images: Iterable[tuple[Key, Image]]) -> Iterator[tuple[Key, str]]:
    """Yields each key with the caption of its RGB image, in order."""
    remaining = iter(images)
    while batch := list(islice(remaining, CAPTION_BATCH)):
        keys, batch_images = zip(*batch, strict=True)
        yield from zip(keys, captioner.caption(batch_images), strict=True)
