"""The guard against over-optimisation: what CLIP likes about a picture should survive changes nobody sees."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgen.decode import to_image
from clipgen.families import Family
from clipgen.settings.settings import Note

Change = Callable[[Tensor], Tensor]  # pixels [B, 3, H, W] in [0, 1] -> the same picture, changed a little
KEPT = 0.7  # share of the gain below which a picture counts as over-optimised
QUALITY, SIGMA, SHRUNK = 75, 0.7, 0.75


@dataclass(frozen=True)
class Survival:
    """How much of one picture's gain in similarity is left after each change, by its name, 1 = all of it."""

    by_change: Mapping[str, float]

    @property
    def kept(self) -> float:
        """The share that is left on average."""
        return sum(self.by_change.values()) / len(self.by_change)


def survival(
    pixels: Tensor,
    similarity: Callable[[Tensor], Tensor],
    baseline: Tensor,
    round_trip: Change | None = None,
) -> list[Survival | None]:
    """Returns for each picture [B, 3, H, W] in [0, 1] what its gain over the `baseline` [B] survives.

    `similarity` scores pictures, [B]; `round_trip` sends them through the model's VAE. None where nothing was gained.
    """
    changes: dict[str, Change] = {"jpeg": jpeg, "shift": shift, "blur": blur, "resize": resize}
    if round_trip is not None:
        changes["vae"] = round_trip
    with torch.no_grad():
        gain = similarity(pixels) - baseline
        left = {name: similarity(change(pixels).clamp(0, 1)) - baseline for name, change in changes.items()}
    return [
        Survival({name: float(rest[row] / gain[row]) for name, rest in left.items()}) if gain[row] > 0 else None
        for row in range(len(pixels))
    ]


def overoptimised(survivals: Sequence[Survival | None]) -> list[Note | None]:
    """Returns for each picture a warning if too little of its gain is left."""
    return [None if one is None or one.kept >= KEPT else _note(one) for one in survivals]


def _note(one: Survival) -> Note:
    worst = min(one.by_change, key=lambda name: one.by_change[name])
    line = (
        f"Of what guidance gained in CLIP similarity {max(0.0, one.kept):.0%} survive small changes (worst: {worst}): "
        "lower clip_guidance_scale."
    )
    return Note("guidance-overoptimised", "clip_guidance_scale", line)


def jpeg(pixels: Tensor) -> Tensor:
    """Returns pictures as JPEG of quality 75 gives them back."""
    from PIL import Image

    def through(picture: Tensor) -> Tensor:
        file = io.BytesIO()
        to_image(picture.cpu()).save(file, "JPEG", quality=QUALITY)
        levels = torch.frombuffer(bytearray(Image.open(file, formats=("JPEG",)).tobytes()), dtype=torch.uint8)
        return levels.view(*picture.shape[1:], 3).permute(2, 0, 1) / 255

    return torch.stack([through(picture) for picture in pixels]).to(pixels)


def shift(pixels: Tensor) -> Tensor:
    """Returns pictures moved by one pixel right and down; the border is repeated."""
    return F.pad(pixels, (1, 0, 1, 0), mode="replicate")[..., :-1, :-1]


def blur(pixels: Tensor) -> Tensor:
    """Returns pictures blurred by a Gaussian of .7 pixels."""
    offsets = torch.arange(-3, 4, device=pixels.device)
    line = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    line = (line / line.sum()).to(pixels).expand(3, 1, 1, 7)
    across = F.conv2d(F.pad(pixels, (3, 3, 0, 0), mode="replicate"), line, groups=3)
    return F.conv2d(F.pad(across, (0, 0, 3, 3), mode="replicate"), line.transpose(2, 3), groups=3)


def resize(pixels: Tensor) -> Tensor:
    """Returns pictures shrunk to three quarters and enlarged again."""
    height, width = pixels.shape[-2:]
    small = F.interpolate(pixels, (round(height * SHRUNK), round(width * SHRUNK)), mode="bicubic", antialias=True)
    return F.interpolate(small, (height, width), mode="bicubic", antialias=True)


def vae_round_trip(family: Family) -> Change:
    """Returns what encodes pictures [B, 3, H, W] with a model's VAE and decodes them again.

    The latents are neither scaled nor shifted in between, and of a distribution of them the mode is taken.
    """
    vae = family.vae

    def through(pixels: Tensor) -> Tensor:
        encoded = vae.encode((pixels * 2 - 1).to(device=vae.device, dtype=vae.dtype))
        latents = encoded.latents if type(vae).__name__ == "AutoencoderTiny" else encoded.latent_dist.mode()
        decoded: Tensor = vae.decode(latents).sample
        return (decoded.float() / 2 + 0.5).to(pixels.device)

    return through
