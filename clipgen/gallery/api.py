"""What CLIP makes of pictures, in Python: similarity, score, classify, rank, caption, search, diversity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clipgen.clip.classify import DEFAULT_TEMPLATES, Classification, check_labels, classify_features, label_features
from clipgen.clip.diversity import Diversity
from clipgen.clip.diversity import diversity as diversity_of
from clipgen.clip.score import Score, Scorer, read_captions
from clipgen.decode import to_image
from clipgen.device import pick_device, raise_out_of_memory
from clipgen.errors import SettingsError
from clipgen.gallery.features import iter_captions, iter_image_features
from clipgen.gallery.image_paths import find_images
from clipgen.gallery.index import open_index
from clipgen.gallery.search import SearchHit, nearest_images, parse_query, query_features
from clipgen.image_file import open_image
from clipgen.models import load_encoder
from clipgen.models.find import find_clip
from clipgen.models.load_captioner import load_captioner

ImageSource = str | Path | Image.Image | Tensor
STORYBOOK = "storybook"


@dataclass(frozen=True)
class RankedImage:
    """A picture of a ranking: its place in the list that was given, itself, and its score."""

    index: int
    image: ImageSource
    score: Score


def load_clip(model: str = STORYBOOK, device: str | torch.device = "auto", *, offline: bool = False) -> Scorer:
    """Loads a CLIP or SigLIP, to be handed as `model` to several calls: storybook, a folder, or a hub id.

    Raises SettingsError, ModelNotFound, ModelError, OutOfMemory.
    """
    place = pick_device(device) if isinstance(device, str) else device
    folder = find_clip(model, offline=offline).path
    with raise_out_of_memory(f"CLIP '{model}'", place):
        return Scorer(load_encoder(model, place, offline=True), read_captions(), folder)


def similarity(
    images: ImageSource | Iterable[ImageSource], texts: str | Sequence[str], *, model: str | Scorer = STORYBOOK
) -> Tensor:
    """Returns the cosines [I, T] of pictures and texts.

    A picture is a path, one of PIL, or a tensor [3, H, W] in [0, 1]; `model` is a CLIP's name or what load_clip gave.
    Raises ImageFileError, and what load_clip raises.
    """
    scorer, features = _seen(images, model)
    return features @ scorer.encoder.text_features([texts] if isinstance(texts, str) else texts).T


def score(
    images: ImageSource | Iterable[ImageSource], texts: str | Sequence[str], *, model: str | Scorer = STORYBOOK
) -> list[Score]:
    """Returns each picture's calibrated score by its own text, or by one text for all; see `similarity`.

    Raises SettingsError where pictures and texts are not equally many.
    """
    pictures = _listed(images)
    words = [texts] * len(pictures) if isinstance(texts, str) else list(texts)
    if len(words) != len(pictures):
        raise SettingsError(f"texts must be one, or as many as the {len(pictures)} images, got '{len(words)}'")
    scorer, features = _seen(pictures, model)
    return scorer.score_features(features, words)


def classify(
    images: ImageSource | Iterable[ImageSource],
    labels: Sequence[str],
    *,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    model: str | Scorer = STORYBOOK,
) -> list[list[Classification]]:
    """Returns each picture's labels with their probabilities, the likeliest first; see `similarity`.

    The probabilities are the softmax of logits_per_image. A template such as `a photo of {}` is put around the label;
    several are averaged. Raises SettingsError for fewer than two labels.
    """
    check_labels(labels, templates)
    scorer, features = _seen(images, model)
    words = label_features(scorer.encoder, labels, templates)
    return [classify_features(scorer.encoder, image, labels, words) for image in features]


def rank(images: Iterable[ImageSource], text: str, *, model: str | Scorer = STORYBOOK) -> list[RankedImage]:
    """Returns the pictures with their scores by one text, the best first; see `similarity`."""
    pictures = _listed(images)
    scores = score(pictures, text, model=model)
    found = [RankedImage(index, *pair) for index, pair in enumerate(zip(pictures, scores, strict=True))]
    return sorted(found, key=lambda ranked: ranked.score.rank, reverse=True)


def caption(
    images: ImageSource | Iterable[ImageSource],
    *,
    model: str = STORYBOOK,
    kind: str | None = None,
    device: str = "auto",
) -> list[str]:
    """Returns a caption of each picture by a model that brings a captioner, or a BLIP; see `similarity`.

    `kind` is `coca` or `clipcap` where a model brings both. Raises ModelNotFound for a model that brings none.
    """
    pictures = [to_image(p.cpu()) if isinstance(p, Tensor) else _image(p) for p in _listed(images)]
    writer = load_captioner(model, pick_device(device), kind)
    return [text for _, text in iter_captions(writer, enumerate(pictures))]


def search(
    query: str | None,
    folders: Iterable[str | Path],
    *,
    like: ImageSource | Iterable[ImageSource] | None = None,
    top: int = 10,
    model: str = STORYBOOK,
) -> list[SearchHit]:
    """Returns the pictures below folders that are closest to a query, to pictures, or to the sum of both.

    A query is words, or words with ` + ` and ` - ` between them. What CLIP sees is kept in the index of that CLIP;
    pictures that cannot be read are passed over. Raises SettingsError for a query without words.
    """
    terms = [] if query is None else parse_query(query)
    scorer = load_clip(model)
    examples = () if like is None else _seen(like, scorer)[1].unbind()
    index, paths = open_index(find_clip(model, offline=True).path), list(find_images(folders))
    for _ in index.update(paths, scorer.encoder, lambda path, error: None):
        pass
    return nearest_images(index, paths, query_features(scorer.encoder, terms, examples), top)


def diversity(images: Iterable[ImageSource], *, model: str | Scorer = STORYBOOK) -> Diversity:
    """Returns how different two or more pictures are to CLIP; see `similarity`."""
    pictures = _listed(images)
    if len(pictures) < 2:
        raise SettingsError("images must be two or more, got '1'", field="images")
    return diversity_of(_seen(pictures, model)[1])


def _seen(images: ImageSource | Iterable[ImageSource], model: str | Scorer) -> tuple[Scorer, Tensor]:
    """Returns the CLIP and the unit vectors [I, D] it gives; pictures that cannot be opened are met before it loads."""
    pictures = [picture if isinstance(picture, Tensor) else _image(picture) for picture in _listed(images)]
    scorer = load_clip(model) if isinstance(model, str) else model
    features = [features for _, features in iter_image_features(scorer.encoder, enumerate(pictures))]
    return scorer, torch.stack(features)


def _image(picture: str | Path | Image.Image) -> Image.Image:
    return picture.convert("RGB") if isinstance(picture, Image.Image) else open_image(picture)


def _listed(images: ImageSource | Iterable[ImageSource]) -> list[ImageSource]:
    """Returns one or many pictures as a list; raises SettingsError for none."""
    if isinstance(images, str | Path | Image.Image) or (isinstance(images, Tensor) and images.ndim == 3):
        return [images]
    listed = list(images)
    if not listed:
        raise SettingsError("images must be one or more, got none", field="images")
    return listed
