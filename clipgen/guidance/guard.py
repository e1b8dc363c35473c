"""The guard against over-optimisation: what CLIP likes about an image should survive changes too small to see."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgen.families import Family
from clipgen.pixels import to_image, to_pixels
from clipgen.settings.settings import Note

Change = Callable[[Tensor], Tensor]  # pixels [B, 3, H, W] in [0, 1] -> the same images, changed a little
MIN_SHARE = 0.7  # share of the gain below which an image counts as over-optimised
JPEG_QUALITY, BLUR_SIGMA, RESIZE_FACTOR = 75, 0.7, 0.75


@dataclass(frozen=True)
class Survival:
    """The share of an image's gain in similarity that is left after each change, by its name; 1 = all of it."""

    share_by_change: Mapping[str, float]

    @property
    def mean_share(self) -> float:
        """The mean over all changes."""
        return sum(self.share_by_change.values()) / len(self.share_by_change)


def measure_survival(
    pixels: Tensor,
    similarity: Callable[[Tensor], Tensor],
    baseline: Tensor,
    round_trip: Change | None = None,
) -> list[Survival | None]:
    """Returns per image how much of its gain in similarity survives small changes; None for an image without gain.

    Args:
        pixels: the images, [B, 3, H, W] in [0, 1].
        similarity: images -> their CLIP similarity [B].
        baseline: similarity before guidance, [B]; the gain is counted from it.
        round_trip: encodes and decodes images with the model's VAE, as one more change.
    """
    changes: dict[str, Change] = {"jpeg": jpeg, "shift": shift, "blur": blur, "resize": resize}
    if round_trip is not None:
        changes["vae"] = round_trip
    with torch.no_grad():
        gain = similarity(pixels) - baseline  # [B]
        gain_after = {name: similarity(change(pixels).clamp(0, 1)) - baseline for name, change in changes.items()}
    return [
        Survival({name: float(left[row] / gain[row]) for name, left in gain_after.items()}) if gain[row] > 0 else None
        for row in range(len(pixels))
    ]


def survival_warnings(survivals: Sequence[Survival | None]) -> list[Note | None]:
    """Returns per image a warning if less than MIN_SHARE of its gain survives."""
    return [None if item is None or item.mean_share >= MIN_SHARE else _warning(item) for item in survivals]


def _warning(item: Survival) -> Note:
    worst = min(item.share_by_change, key=lambda name: item.share_by_change[name])
    line = (
        f"Of what guidance gained in CLIP similarity {max(0.0, item.mean_share):.0%} survive small changes "
        f"(worst: {worst}): lower clip_guidance_scale."
    )
    return Note("guidance-overoptimised", "clip_guidance_scale", line)


def jpeg(pixels: Tensor) -> Tensor:
    """Returns images after JPEG compression at quality 75."""
    from PIL import Image

    def compress(image: Tensor) -> Tensor:
        file = io.BytesIO()
        to_image(image.cpu()).save(file, "JPEG", quality=JPEG_QUALITY)
        return to_pixels(Image.open(file, formats=("JPEG",)))

    return torch.stack([compress(image) for image in pixels]).to(pixels)


def shift(pixels: Tensor) -> Tensor:
    """Returns images shifted by one pixel to the right and down, with the border repeated."""
    return F.pad(pixels, (1, 0, 1, 0), mode="replicate")[..., :-1, :-1]


def blur(pixels: Tensor) -> Tensor:
    """Returns images blurred by a Gaussian with a sigma of 0.7 pixels."""
    offsets = torch.arange(-3, 4, device=pixels.device)
    kernel = torch.exp(-(offsets**2) / (2 * BLUR_SIGMA**2))
    kernel = (kernel / kernel.sum()).to(pixels).expand(3, 1, 1, 7)  # one horizontal kernel per channel
    horizontal = F.conv2d(F.pad(pixels, (3, 3, 0, 0), mode="replicate"), kernel, groups=3)
    return F.conv2d(F.pad(horizontal, (0, 0, 3, 3), mode="replicate"), kernel.transpose(2, 3), groups=3)


def resize(pixels: Tensor) -> Tensor:
    """Returns images resized to three quarters and back."""
    height, width = pixels.shape[-2:]
    smaller = round(height * RESIZE_FACTOR), round(width * RESIZE_FACTOR)
    small = F.interpolate(pixels, smaller, mode="bicubic", antialias=True)
    return F.interpolate(small, (height, width), mode="bicubic", antialias=True)


def vae_round_trip(family: Family) -> Change:
    """Returns a change that encodes images [B, 3, H, W] with a model's VAE and decodes them again."""
    return lambda pixels: family.reconstruct(pixels).to(pixels.device)
