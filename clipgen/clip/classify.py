"""Zero-shot classification: which of some labels fits a picture, as CLIP was trained to tell (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import SettingsError

DEFAULT_TEMPLATES = ("{}",)
PLACE = "{}"  # where a template takes the label
FEWEST = 2


@dataclass(frozen=True)
class Classification:
    """One label of a picture: its probability among all labels, and its cosine."""

    label: str
    probability: float
    similarity: float


def check_labels(labels: Sequence[str], templates: Sequence[str]) -> None:
    """Raises SettingsError for fewer than two labels, for empty or equal ones, and for a template without a place."""
    if len(labels) < FEWEST:
        raise SettingsError(f"labels must be two or more, got '{', '.join(labels)}'", field="labels")
    if twice := [label for label in labels if not label.strip() or labels.count(label) > 1]:
        raise SettingsError(f"labels must differ and not be empty, got '{twice[0]}'", field="labels")
    if wrong := [template for template in templates if template.count(PLACE) != 1]:
        raise SettingsError(f"template must hold {PLACE} once, got '{wrong[0]}'", field="template")


def label_features(encoder: ClipEncoder, labels: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES) -> Tensor:
    """Returns the unit vectors [L, D] of labels, each the mean over the templates that it is put into."""
    texts = [template.replace(PLACE, label) for label in labels for template in templates]
    features = encoder.text_features(texts).unflatten(0, (len(labels), len(templates)))
    return F.normalize(features.mean(dim=1), dim=-1)


def probabilities(encoder: ClipEncoder, images: Tensor, labels: Tensor) -> Tensor:
    """Returns the softmax [I, L] of logits_per_image over labels, of unit vectors [I, D] and [L, D]."""
    return encoder.logits(images, labels).softmax(dim=-1)


def classify_features(
    encoder: ClipEncoder, image: Tensor, labels: Sequence[str], features: Tensor
) -> list[Classification]:
    """Returns the labels of one picture, the likeliest first; its unit vector is [D], those of the labels [L, D]."""
    chances = probabilities(encoder, image[None], features)[0].tolist()
    found = map(Classification, labels, chances, (features @ image).tolist())
    return sorted(found, key=lambda guess: guess.probability, reverse=True)
