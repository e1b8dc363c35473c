"""The Python functions on images: similarity, score, classify, rank, caption, search and diversity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clipgen.clip.classify import (
    DEFAULT_TEMPLATES,
    Classification,
    check_labels,
    classify_features,
    label_features,
)
from clipgen.clip.diversity import Diversity
from clipgen.clip.diversity import diversity as diversity_of
from clipgen.clip.score import Score, Scorer, read_captions
from clipgen.device import pick_device, raise_out_of_memory
from clipgen.errors import SettingsError
from clipgen.gallery.features import iter_captions, iter_image_features
from clipgen.gallery.image_paths import find_images
from clipgen.gallery.image_search import SearchHit, nearest_images, parse_query, query_features
from clipgen.gallery.index import open_index
from clipgen.image_file import open_image
from clipgen.models import load_encoder
from clipgen.models.find import find_clip
from clipgen.models.load_captioner import load_captioner
from clipgen.pixels import to_image

ImageSource = str | Path | Image.Image | Tensor  # a path, a PIL image, or pixels [3, H, W] in [0, 1]
STORYBOOK = "storybook"


@dataclass(frozen=True)
class RankedImage:
    """An image of a ranking: its index in the input, the image as it was given, and its score."""

    index: int
    image: ImageSource
    score: Score


def load_clip(model: str = STORYBOOK, device: str | torch.device = "auto", *, offline: bool = False) -> Scorer:
    """Loads a CLIP or SigLIP, to pass as `model` to several calls: storybook, a folder or a hub id.

    Raises SettingsError, ModelNotFound, ModelError and OutOfMemory.
    """
    torch_device = pick_device(device) if isinstance(device, str) else device
    folder = find_clip(model, offline=offline).path
    with raise_out_of_memory(f"CLIP '{model}'", torch_device):
        return Scorer(load_encoder(model, torch_device, offline=True), read_captions(), folder)


def similarity(
    images: ImageSource | Iterable[ImageSource], texts: str | Sequence[str], *, model: str | Scorer = STORYBOOK
) -> Tensor:
    """Returns the cosine similarities [I, T] of images and texts.

    An image is a path, a PIL image, or a tensor [3, H, W] in [0, 1]. `model` is the name of a CLIP or the result of
    load_clip. Raises ImageFileError and the errors of load_clip.
    """
    scorer, features = _image_features(images, model)
    return features @ scorer.encoder.text_features([texts] if isinstance(texts, str) else texts).T


def score(
    images: ImageSource | Iterable[ImageSource], texts: str | Sequence[str], *, model: str | Scorer = STORYBOOK
) -> list[Score]:
    """Returns the calibrated score of each image with its own text, or with one text for all; see `similarity`.

    Raises SettingsError if the numbers of images and texts differ.
    """
    sources = _as_list(images)
    prompts = [texts] * len(sources) if isinstance(texts, str) else list(texts)
    if len(prompts) != len(sources):
        raise SettingsError(f"texts must be one, or as many as the {len(sources)} images, got '{len(prompts)}'")
    scorer, features = _image_features(sources, model)
    return scorer.score_features(features, prompts)


def classify(
    images: ImageSource | Iterable[ImageSource],
    labels: Sequence[str],
    *,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    model: str | Scorer = STORYBOOK,
) -> list[list[Classification]]:
    """Returns the labels of each image with their probabilities, the most probable first; see `similarity`.

    The probabilities are the softmax of logits_per_image. Each label is put into each template, such as
    `a photo of {}`, and its text features are averaged. Raises SettingsError for fewer than two labels.
    """
    check_labels(labels, templates)
    scorer, features = _image_features(images, model)
    text_features = label_features(scorer.encoder, labels, templates)
    return [classify_features(scorer.encoder, image, labels, text_features) for image in features]


def rank(images: Iterable[ImageSource], text: str, *, model: str | Scorer = STORYBOOK) -> list[RankedImage]:
    """Returns the images with their scores for one text, the best first; see `similarity`."""
    sources = _as_list(images)
    scores = score(sources, text, model=model)
    ranked = [RankedImage(index, *pair) for index, pair in enumerate(zip(sources, scores, strict=True))]
    return sorted(ranked, key=lambda each: each.score.rank, reverse=True)


def caption(
    images: ImageSource | Iterable[ImageSource],
    *,
    model: str = STORYBOOK,
    kind: str | None = None,
    device: str = "auto",
) -> list[str]:
    """Returns a caption of each image, by a model that has a captioner or by a BLIP; see `similarity`.

    `kind` is `coca` or `clipcap`, for models with both. Raises ModelNotFound for a model without a captioner.
    """
    opened = [to_image(each.cpu()) if isinstance(each, Tensor) else _open(each) for each in _as_list(images)]
    captioner = load_captioner(model, pick_device(device), kind)
    return [text for _, text in iter_captions(captioner, enumerate(opened))]


def search(
    folders: Iterable[str | Path],
    query: str | None = None,
    *,
    like: ImageSource | Iterable[ImageSource] | None = None,
    top: int = 10,
    model: str = STORYBOOK,
) -> list[SearchHit]:
    """Returns the images below folders that are closest to a query, to the images `like`, or to the sum of both.

    A query is a text, or texts with ` + ` and ` - ` between them. Image features are cached in an index per CLIP;
    files that cannot be read are skipped. Raises SettingsError for a query without words.
    """
    terms = [] if query is None else parse_query(query)
    scorer = load_clip(model)
    examples = () if like is None else _image_features(like, scorer)[1].unbind()
    index, paths = open_index(find_clip(model, offline=True).path), list(find_images(folders))
    for _ in index.update(scorer.encoder, paths, lambda path, error: None):
        pass
    return nearest_images(index, paths, query_features(scorer.encoder, examples, terms), top)


def diversity(images: Iterable[ImageSource], *, model: str | Scorer = STORYBOOK) -> Diversity:
    """Returns how different two or more images are in CLIP's feature space; see `similarity`."""
    sources = _as_list(images)
    if len(sources) < 2:
        raise SettingsError("images must be two or more, got '1'", field="images")
    return diversity_of(_image_features(sources, model)[1])


def _image_features(images: ImageSource | Iterable[ImageSource], model: str | Scorer) -> tuple[Scorer, Tensor]:
    """Returns the scorer and the unit vectors [I, D] of images, which are opened before the CLIP is loaded."""
    opened = [image if isinstance(image, Tensor) else _open(image) for image in _as_list(images)]
    scorer = load_clip(model) if isinstance(model, str) else model
    features = [features for _, features in iter_image_features(scorer.encoder, enumerate(opened))]
    return scorer, torch.stack(features)


def _open(image: str | Path | Image.Image) -> Image.Image:
    return image.convert("RGB") if isinstance(image, Image.Image) else open_image(image)


def _as_list(images: ImageSource | Iterable[ImageSource]) -> list[ImageSource]:
    """Returns one or many images as a list; raises SettingsError for an empty one."""
    if isinstance(images, str | Path | Image.Image) or (isinstance(images, Tensor) and images.ndim == 3):
        return [images]
    sources = list(images)
    if not sources:
        raise SettingsError("images must be one or more, got none", field="images")
    return sources
