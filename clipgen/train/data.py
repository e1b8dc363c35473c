"""Pictures to train on: a folder of rendered scenes, memory-mapped, with captions made anew from their seeds."""

from __future__ import annotations

import json
import multiprocessing
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from clipgen.world.concepts import drawn_hash
from clipgen.world.grammar import caption
from clipgen.world.render import render
from clipgen.world.scene import Mix, Scene, sample_scene

Bytes = npt.NDArray[np.uint8]


class Pictures(Protocol):
    """What parts train on: pictures, uint8 [count, size, size, 3], and something to say of each."""

    @property
    def pictures(self) -> Bytes:
        """All of them."""
        ...

    def __len__(self) -> int: ...

    def caption(self, index: int, rng: random.Random) -> str:
        """Draws a caption of a picture."""
        ...

    def images(self, indices: npt.NDArray[np.int64]) -> torch.Tensor:
        """Returns pictures as float [B, 3, size, size] in [-1, 1]."""
        ...


def held_back(data: Pictures, most: int) -> int:
    """Returns how many pictures, the last ones, are kept for measuring: an eighth of them, `most` at most."""
    return min(most, max(1, len(data) // 8))


@dataclass(frozen=True)
class Renders:
    """`count` scenes with seeds first_seed, first_seed + 1 ... and their pictures, uint8 [count, size, size, 3]."""

    pictures: Bytes
    first_seed: int
    mix: Mix

    def __len__(self) -> int:
        return len(self.pictures)

    def scene(self, index: int) -> Scene:
        """Returns the scene of a picture."""
        return sample_scene(self.first_seed + index, self.mix)

    def caption(self, index: int, rng: random.Random) -> str:
        """Draws a caption of a picture."""
        return caption(self.scene(index), rng)

    def images(self, indices: npt.NDArray[np.int64]) -> torch.Tensor:
        """Returns pictures as float [B, 3, size, size] in [-1, 1]."""
        batch = torch.from_numpy(np.ascontiguousarray(self.pictures[np.sort(indices)]))
        back = torch.from_numpy(np.argsort(np.argsort(indices)))
        return to_unit(batch[back])


class Seen:
    """What somebody who does not learn sees of pictures, [B, ...] by their indices: looked at once each, and kept."""

    def __init__(self, look: Callable[[npt.NDArray[np.int64]], torch.Tensor]) -> None:
        self._look = look
        self._kept: dict[int, torch.Tensor] = {}

    @torch.no_grad()
    def of(self, indices: npt.NDArray[np.int64]) -> torch.Tensor:
        """Returns what is seen of some pictures, on the CPU."""
        if new := [i for i in dict.fromkeys(indices.tolist()) if i not in self._kept]:
            self._kept |= dict(zip(new, self._look(np.array(new)).cpu(), strict=True))
        return torch.stack([self._kept[i] for i in indices.tolist()])


def to_unit(pictures: torch.Tensor) -> torch.Tensor:
    """Turns uint8 [B, H, W, 3] into float [B, 3, H, W] in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def _picture(seed: int, mix: Mix, size: int) -> bytes:
    return render(sample_scene(seed, mix), size).tobytes()


def rendered(
    folder: Path, count: int, *, mix: Mix, size: int = 128, first_seed: int = 0, processes: int = 1
) -> Renders:
    """Opens the first `count` renders of a folder, rendering first those that are missing.

    renders.u8 holds whole images one after another, so an interrupted rendering goes on where it stopped and a larger
    `count` only adds images. Images of another world (size, mix, seed, vocabulary) are rendered again.
    """
    world = {"size": size, "first_seed": first_seed, "mix": asdict(mix), "concepts": drawn_hash(mix.names)}
    world = json.loads(json.dumps(world))
    folder.mkdir(parents=True, exist_ok=True)
    described, stored = folder / "renders.json", folder / "renders.u8"
    if not described.exists() or json.loads(described.read_text()) != world:
        stored.unlink(missing_ok=True)
        described.write_text(json.dumps(world))
    image_bytes = size * size * 3
    done = stored.stat().st_size // image_bytes if stored.exists() else 0
    if done < count:
        with stored.open("ab") as file:
            file.truncate(done * image_bytes)  # the last image may be cut off
            with multiprocessing.get_context("spawn").Pool(processes) as pool:
                seeds = range(first_seed + done, first_seed + count)
                for image in pool.imap(partial(_picture, mix=mix, size=size), seeds, chunksize=32):
                    file.write(image)
    return Renders(np.memmap(stored, np.uint8, "r", shape=(count, size, size, 3)), first_seed, mix)
