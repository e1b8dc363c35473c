"""A calibrated CLIP score: how many of 1,000 fixed captions fit a picture worse than its own prompt does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import ModelError
from clipgen.image_file import digest_of

CAPTIONS = "captions/storybook.txt"
STORED = "caption_features.safetensors"  # in a model's clip folder: what text_features(captions) gives there
TOO_CLOSE = 0.9  # text cosine: such a caption says what the prompt says
FEWEST = 500  # captions that calibrate
WEIGHT = 2.5  # clip_score = WEIGHT * max(similarity, 0): Hessel et al. 2021 (arXiv 2104.08718)


@dataclass(frozen=True)
class Score:
    """CLIP's opinion of one picture: the cosine to its prompt, and the percentile among captions (None: uncalibrated).

    `captions` is how many were compared; `self_graded` = the scoring CLIP also steered; `curve` holds
    (step, similarity, unguided similarity).
    """

    model: str
    similarity: float
    score: float
    percentile: float | None
    captions: int
    self_graded: bool = False
    curve: tuple[tuple[int, float, float | None], ...] = ()

    @property
    def rank(self) -> tuple[float, float]:
        """What pictures are sorted by: the percentile, and where that is equal or unknown the similarity."""
        return -1.0 if self.percentile is None else self.percentile, self.similarity

    def to_dict(self) -> dict[str, Any]:
        """Returns every field, JSON-safe, as the record carries it."""
        return {**asdict(self), "curve": [list(point) for point in self.curve]}


def read_captions() -> list[str]:
    """Returns the fixed captions that the package brings, one a line."""
    return (files("clipgen.clip") / CAPTIONS).read_text("utf-8").splitlines()


class Scorer:
    """Scores pictures by one CLIP. `folder` is where its files lie, for caption features stored beside them."""

    def __init__(self, encoder: ClipEncoder, captions: Sequence[str], folder: Path | None = None) -> None:
        self.encoder = encoder
        self.captions = captions
        self.folder = folder

    @cached_property
    def caption_features(self) -> Tensor:
        """The captions' unit vectors [N, D]: those stored with the model if they are of this list, else computed."""
        stored = None if self.folder is None else stored_features(self.folder, self.captions)
        features = self.encoder.text_features(self.captions) if stored is None else stored
        return features.to(self.encoder.model.device)

    def store(self, folder: Path) -> Path:
        """Writes the captions' vectors beside this CLIP's weights, so that nobody computes them again."""
        return store_features(folder, self.caption_features, self.captions)

    @torch.no_grad()
    def score(self, pixels: Tensor, texts: Sequence[str]) -> list[Score]:
        """Scores pictures [I, 3, H, W] in [0, 1], each by its own text."""
        return self.score_features(self.encoder.image_features(pixels), texts)

    def score_features(self, images: Tensor, texts: Sequence[str]) -> list[Score]:
        """Scores pictures by their unit vectors [I, D], each by its own text."""
        words = self.encoder.text_features(texts)
        return [self._score(image, text) for image, text in zip(images, words, strict=True)]

    def _score(self, image: Tensor, text: Tensor) -> Score:
        similarity = float(image @ text)
        rank, used = percentile(image, text, self.caption_features)
        return Score(self.encoder.name, similarity, WEIGHT * max(similarity, 0.0), rank, used)


def percentile(image: Tensor, text: Tensor, captions: Tensor) -> tuple[float | None, int]:
    """Returns which percentage of captions fits a picture worse than its text does, and how many were compared.

    image [D], text [D], captions [N, D], all unit vectors. Captions that say the same as the text are left out; half
    of the ties count as worse. None where fewer than 500 are left.
    """
    others = captions[captions @ text <= TOO_CLOSE]
    if len(others) < FEWEST:
        return None, len(others)
    own, theirs = image @ text, others @ image
    worse = int((theirs < own).sum()) + int((theirs == own).sum()) / 2
    return 100 * worse / len(others), len(others)


def store_features(folder: Path, features: Tensor, captions: Sequence[str]) -> Path:
    """Writes the captions' unit vectors [N, D], halved as weights are, into a CLIP's folder, bound to both.

    A cosine is off by 1e-4 at most, so ranks stay.
    """
    from safetensors.torch import save_file

    path = folder / STORED
    save_file({"text_features": features.half().contiguous()}, path, metadata=_binding(folder, captions))
    path.chmod(0o644)
    return path


def stored_features(folder: Path, captions: Sequence[str]) -> Tensor | None:
    """Returns the vectors that `store_features` wrote, None if there are none for these weights and captions.

    Raises ModelError for a file that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if not (folder / STORED).is_file():
        return None
    try:
        with safe_open(folder / STORED, framework="pt") as file:
            fits = file.metadata() == _binding(folder, captions)
            features: Tensor = file.get_tensor("text_features")
    except SafetensorError as error:
        raise ModelError(f"{folder.name}/{STORED} cannot be read: {error}") from None
    return features.float() if fits else None


def _binding(folder: Path, captions: Sequence[str]) -> dict[str, str]:
    listed = hashlib.sha256("\n".join(captions).encode()).hexdigest()
    return {"captions": listed, "weights": digest_of(folder / "model.safetensors")}
