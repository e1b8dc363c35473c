from __future__ import annotations

import torch
from PIL import Image

from clipgen.pixels import to_image, to_pixels


def test_an_image_is_unchanged_after_conversion_to_a_tensor_and_back() -> None:
    levels = torch.randint(0, 256, (7, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(levels.numpy())
    pixels = to_pixels(image)
    assert pixels.shape == (3, 7, 5)
    assert torch.equal(pixels, levels.permute(2, 0, 1) / 255)
    assert to_image(pixels).tobytes() == image.tobytes()


def test_pixels_outside_the_range_are_clamped() -> None:
    assert to_image(torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1)).getpixel((0, 0)) == (0, 128, 255)
