"""Zero-shot image classification with CLIP (Radford et al. 2021, arXiv 2103.00020, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import SettingsError

DEFAULT_TEMPLATES = ("{}",)
SLOT = "{}"  # a template's placeholder for the label
MIN_LABELS = 2


@dataclass(frozen=True)
class Classification:
    """One label of an image, with its probability among all labels and its cosine similarity."""

    label: str
    probability: float
    similarity: float


def check_labels(labels: Sequence[str], templates: Sequence[str]) -> None:
    """Raises SettingsError for fewer than two labels, empty or equal labels, or a template without one slot."""
    if len(labels) < MIN_LABELS:
        raise SettingsError(f"labels must be two or more, got '{', '.join(labels)}'", field="labels")
    if invalid := [label for label in labels if not label.strip() or labels.count(label) > 1]:
        raise SettingsError(f"labels must differ and not be empty, got '{invalid[0]}'", field="labels")
    if invalid := [template for template in templates if template.count(SLOT) != 1]:
        raise SettingsError(f"template must contain {SLOT} once, got '{invalid[0]}'", field="template")


def label_features(encoder: ClipEncoder, labels: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES) -> Tensor:
    """Returns unit vectors [L, D], one per label: the mean of its text features over all templates."""
    texts = [template.replace(SLOT, label) for label in labels for template in templates]
    features = encoder.text_features(texts).unflatten(0, (len(labels), len(templates)))  # [L, templates, D]
    return F.normalize(features.mean(dim=1), dim=-1)


def probabilities(encoder: ClipEncoder, image_features: Tensor, text_features: Tensor) -> Tensor:
    """Returns the softmax [I, L] of logits_per_image, from unit vectors [I, D] and [L, D]."""
    return encoder.logits(image_features, text_features).softmax(dim=-1)


def classify_features(
    encoder: ClipEncoder, image: Tensor, labels: Sequence[str], text_features: Tensor
) -> list[Classification]:
    """Returns one image's labels, the most probable first.

    `image` is the image's unit vector [D], `text_features` the unit vectors [L, D] of `labels` in their order.
    """
    chances = probabilities(encoder, image[None], text_features)[0].tolist()
    results = map(Classification, labels, chances, (text_features @ image).tolist())
    return sorted(results, key=lambda result: result.probability, reverse=True)
