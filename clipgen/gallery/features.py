"""Pictures through CLIP's eye, a few at a time: however many there are, memory holds one batch of small squares."""

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

AT_ONCE = 32
CAPTIONED_AT_ONCE = 8
Key = TypeVar("Key")
Fault = Callable[[Path, ImageFileError], None]


def open_images(paths: Iterable[Path], fault: Fault) -> Iterator[tuple[Path, Image]]:
    """Yields the pictures that can be opened, one by one as they are asked for; `fault` hears of the others."""
    for path in paths:
        try:
            image = open_image(path)
        except ImageFileError as error:
            fault(path, error)
        else:
            yield path, image


def image_to_pixels(image: Image) -> Tensor:
    """Returns an RGB picture as [3, H, W] in [0, 1]."""
    levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return levels.view(image.height, image.width, 3).permute(2, 0, 1) / 255


@torch.no_grad()
def iter_image_features(
    encoder: ClipEncoder, pictures: Iterable[tuple[Key, Image | Tensor]]
) -> Iterator[tuple[Key, Tensor]]:
    """Yields what names each picture with the picture's unit vector [D], in order.

    A picture is RGB of PIL, or a tensor [3, H, W] in [0, 1].
    """
    squares = (
        (key, picture if isinstance(picture, Tensor) else encoder.to_pixels(picture)) for key, picture in pictures
    )
    while batch := list(islice(squares, AT_ONCE)):
        for _, alike in groupby(batch, key=lambda pair: pair[1].shape):
            keys, pixels = zip(*alike, strict=True)
            yield from zip(keys, encoder.image_features(torch.stack(pixels)), strict=True)


def iter_captions(writer: Captioner, pictures: Iterable[tuple[Key, Image]]) -> Iterator[tuple[Key, str]]:
    """Yields what names each RGB picture with the caption that a writer gives it, in order."""
    left = iter(pictures)
    while batch := list(islice(left, CAPTIONED_AT_ONCE)):
        keys, images = zip(*batch, strict=True)
        yield from zip(keys, writer.caption(images), strict=True)
