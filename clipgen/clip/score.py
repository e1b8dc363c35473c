"""A calibrated CLIP score: the percentage of 1,000 fixed captions that fit an image worse than its own prompt."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from clipgen.atomic import replace_file
from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import ModelError
from clipgen.hashing import sha256_of

CAPTIONS = "captions/storybook.txt"
FEATURES_FILE = "caption_features.safetensors"  # in a model's clip folder: the text features of the captions
MAX_TEXT_COSINE = 0.9  # a caption closer than this to the prompt means the same and is left out
MIN_CAPTIONS = 500  # fewer give no percentile
CLIP_SCORE_WEIGHT = 2.5  # clip_score = 2.5 * max(similarity, 0): Hessel et al. 2021 (arXiv 2104.08718)


@dataclass(frozen=True)
class Score:
    """The CLIP score of one image and its prompt.

    Attributes:
        model: the name of the CLIP model.
        similarity: the cosine similarity of image and prompt.
        score: CLIPScore, 2.5 * max(similarity, 0).
        percentile: the percentage of captions that fit the image worse, None if there are too few captions.
        captions: how many captions were compared.
        self_graded: whether the same CLIP model guided the image.
        curve: (step, similarity, unguided similarity) of the steps.
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
        """The sort key of images: the percentile, then the similarity."""
        return -1.0 if self.percentile is None else self.percentile, self.similarity

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as JSON values, as the record stores them."""
        return {**asdict(self), "curve": [list(point) for point in self.curve]}


def read_captions() -> list[str]:
    """Returns the calibration captions that are installed with the package."""
    return (files("clipgen.clip") / CAPTIONS).read_text("utf-8").splitlines()


class Scorer:
    """Scores images with one CLIP model.

    `folder` holds the model's files, and possibly caption features that were computed before. Otherwise they are kept
    in `cache`, a folder for these weights.
    """

    def __init__(
        self, encoder: ClipEncoder, captions: Sequence[str], folder: Path | None = None, cache: Path | None = None
    ) -> None:
        self.encoder = encoder
        self.captions = captions
        self.folder = folder
        self._cache = cache

    @cached_property
    def caption_features(self) -> Tensor:
        """The unit vectors [N, D] of the captions, read from `folder` or `cache` if they have them, else computed."""
        stored = None if self.folder is None else load_features(self.folder, self.captions)
        if stored is None:
            stored = self._computed_features()
        return stored.to(self.encoder.model.device)

    def _computed_features(self) -> Tensor:
        """Returns the features from `cache`; computes them and writes them there if it has none that can be read."""
        if self._cache is None:
            return self.encoder.text_features(self.captions)
        path = self._cache / f"{_captions_digest(self.captions)[:16]}.safetensors"
        with suppress(OSError, SafetensorError, KeyError):
            return load_file(path)["text_features"].float()
        features = self.encoder.text_features(self.captions)
        with suppress(OSError):
            replace_file(path, save({"text_features": features.half().contiguous()}))
        return features

    def store(self, folder: Path) -> Path:
        """Saves the caption features next to this model's weights in `folder`; returns the file."""
        return store_features(folder, self.caption_features, self.captions)

    @torch.no_grad()
    def score(self, pixels: Tensor, texts: Sequence[str]) -> list[Score]:
        """Returns the scores of images [I, 3, H, W] in [0, 1], each with its own text."""
        return self.score_features(self.encoder.image_features(pixels), texts)

    def score_features(self, image_features: Tensor, texts: Sequence[str]) -> list[Score]:
        """Returns the scores of images with unit vectors [I, D], each with its own text."""
        text_features = self.encoder.text_features(texts)
        return [self._score(image, text) for image, text in zip(image_features, text_features, strict=True)]

    def _score(self, image: Tensor, text: Tensor) -> Score:
        similarity = float(image @ text)
        rank, compared = percentile(image, text, self.caption_features)
        return Score(self.encoder.name, similarity, CLIP_SCORE_WEIGHT * max(similarity, 0.0), rank, compared)


def percentile(image: Tensor, text: Tensor, captions: Tensor) -> tuple[float | None, int]:
    """Returns the percentage of captions that fit an image worse than its text, and how many were compared.

    Captions that mean the same as the text are left out; a tie counts half. The percentage is None if fewer than 500
    captions remain. All arguments are unit vectors: `image` [D], `text` [D], `captions` [N, D].
    """
    others = captions[captions @ text <= MAX_TEXT_COSINE]
    if len(others) < MIN_CAPTIONS:
        return None, len(others)
    own, theirs = image @ text, others @ image
    worse = int((theirs < own).sum()) + int((theirs == own).sum()) / 2
    return 100 * worse / len(others), len(others)


def store_features(folder: Path, features: Tensor, captions: Sequence[str]) -> Path:
    """Writes caption features [N, D] into a CLIP folder in float16, with the digests of weights and captions.

    float16 changes a cosine by at most 1e-4, which leaves percentiles as they are.
    """
    path = folder / FEATURES_FILE
    save_file({"text_features": features.half().contiguous()}, path, metadata=_metadata(folder, captions))
    path.chmod(0o644)
    return path


def load_features(folder: Path, captions: Sequence[str]) -> Tensor | None:
    """Returns the caption features that `store_features` wrote, None if there are none for these weights and captions.

    Raises ModelError if the file is damaged.
    """
    if not (folder / FEATURES_FILE).is_file():
        return None
    try:
        with safe_open(folder / FEATURES_FILE, framework="pt") as file:
            is_current = file.metadata() == _metadata(folder, captions)
            features: Tensor = file.get_tensor("text_features")
    except SafetensorError as error:
        raise ModelError(f"{folder.name}/{FEATURES_FILE} cannot be read: {error}") from None
    return features.float() if is_current else None


def _metadata(folder: Path, captions: Sequence[str]) -> dict[str, str]:
    return {"captions": _captions_digest(captions), "weights": sha256_of(folder / "model.safetensors")}


def _captions_digest(captions: Sequence[str]) -> str:
    return sha256_of("\n".join(captions))
