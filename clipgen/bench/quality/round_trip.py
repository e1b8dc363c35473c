"""True renders that went through a model's autoencoder: the best images that its denoiser could lead to."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipgen.errors import ClipgenError
from clipgen.pixels import to_pixels
from clipgen.world.art import find_package
from clipgen.world.concepts import concepts
from clipgen.world.render import render
from clipgen.world.scene import Mix, Scene, sample_any_scene

if TYPE_CHECKING:
    from clipgen.families import Family

BATCH = 8
SINGLE = Mix(
    kinds=(1.0, 0.0, 0.0), several=0.0, coloured=0.0, plain=0.0, styled=0.0, timed=0.0, sized=0.0, looseness=0.5
)  # one large thing in a place, as most of the denoiser's training images
FIRST_SEED = 3_900_000_000  # above the scenes of every other part of the benchmark


def has_drawings(art: str) -> bool:
    """Returns whether a set of drawings and the library that rasterises it are installed."""
    try:
        find_package(art)
        import resvg_py  # noqa: F401
    except (ClipgenError, ImportError):
        return False
    return True


@torch.no_grad()
def round_trips(family: Family, scenes: Sequence[Scene], side: int) -> Iterator[Tensor]:
    """Yields the pixels [3, side, side] in [0, 1] of each scene, rendered, encoded and decoded."""
    rest = iter(scenes)
    while batch := list(islice(rest, BATCH)):
        pixels = torch.stack([to_pixels(render(scene, side)) for scene in batch])
        yield from round_trip(family, pixels)


def round_trip(family: Family, pixels: Tensor) -> Tensor:
    """Returns images [B, 3, H, W] in [0, 1] after encoding and decoding by an AutoencoderTiny."""
    vae = family.vae
    encoded = vae.encode((2 * pixels - 1).to(vae.device, vae.dtype)).latents * vae.config.scaling_factor
    return family.decode(encoded.float()).clamp(0, 1).cpu()


def single_scenes(names: Sequence[str], art: str) -> list[Scene]:
    """Returns one scene per concept that shows it alone; places and drawings are random but always the same."""
    return [_single(name, FIRST_SEED + k, art) for k, name in enumerate(names)]


def _single(name: str, seed: int, art: str) -> Scene:
    rng = random.Random(seed)
    scene = sample_any_scene(rng, seed, replace(SINGLE, arts=(art,)))
    drawing = rng.choice(concepts()[name].drawings)
    return replace(scene, things=(replace(scene.things[0], concept=name, drawing=drawing),))
