"""The picture that variations are drawn of: its pixels, its weight against the prompt, and which file it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipgen.image_file import digest_of, open_picture
from clipgen.settings import split_target


@dataclass(frozen=True, eq=False)
class Source:
    """A picture [1, 3, H, W] in [0, 1]; `weight` 1 is the picture alone, 0 the prompt alone; `digest` its SHA-256."""

    pixels: Tensor
    weight: float
    digest: str


def read_source(target: str) -> Source:
    """Reads what `vary` names, `picture:weight`; raises ImageFileError."""
    path, weight = split_target(target)
    return Source(read_pixels(path), weight, digest_of(Path(path)))


def read_pixels(path: str) -> Tensor:
    """Returns a picture file as pixels [1, 3, H, W] in [0, 1]; raises ImageFileError."""
    levels = np.asarray(open_picture(path), dtype=np.float32)
    return torch.from_numpy(levels / 255).permute(2, 0, 1)[None]
