"""The index encodes only new images, and a query is a sum of vectors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clipgen.errors import ImageFileError, SettingsError
from clipgen.gallery import find_images, iter_image_features, nearest_images, open_index, parse_query, query_features
from clipgen.image_file import open_image
from clipgen.models.find import find_clip

from .conftest import CAR, FOX


@pytest.fixture
def album(generated: dict[str, Path], tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for name, text in (("fox", FOX), ("car", CAR)):
        shutil.copy(generated[text], folder / f"{name}.png")
    return folder


def index():
    return open_index(find_clip("storybook").path)


def fail(path: Path, error: ImageFileError) -> None:
    raise AssertionError(path)


def names(paths) -> list[str]:
    return sorted(path.name for path in paths)


def test_only_new_and_changed_images_are_encoded(album, clip, generated):
    encoder = clip.encoder
    assert names(index().update(encoder, find_images([album]), fail)) == ["car.png", "fox.png"]
    assert names(index().update(encoder, find_images([album]), fail)) == []
    shutil.copy(generated[FOX], album / "again.png")
    shutil.copy(generated[FOX], album / "car.png")
    assert names(index().update(encoder, find_images([album]), fail)) == ["again.png", "car.png"]
    (album / "again.png").unlink()
    assert names(index().update(encoder, find_images([album]), fail)) == []
    assert names(index().features([album / "again.png", album / "fox.png"])[0]) == ["fox.png"]


def test_an_interrupted_update_is_saved(album, clip):
    updates = index().update(clip.encoder, find_images([album]), fail)
    next(updates)
    updates.close()
    assert len(names(index().update(clip.encoder, find_images([album]), fail))) == 1


def test_a_damaged_index_file_counts_as_empty(album, clip):
    list(index().update(clip.encoder, find_images([album]), fail))
    index().file.write_bytes(b"damaged")
    assert len(list(index().update(clip.encoder, find_images([album]), fail))) == 2


def test_another_clip_has_another_index(clip, tmp_path):
    copy = shutil.copytree(find_clip("storybook").path, tmp_path / "clip", copy_function=shutil.copy)
    assert open_index(copy).file != index().file


def test_the_most_similar_image_is_first(album, clip):
    paths, image_index = list(find_images([album])), index()
    list(image_index.update(clip.encoder, paths, fail))
    for text, name in ((FOX, "fox.png"), (CAR, "car.png")):
        hits = nearest_images(image_index, paths, query_features(clip.encoder, [], [(text, 1.0)]), 5)
        assert hits[0].path.name == name
        assert hits[0].similarity > hits[1].similarity
    [(_, fox)] = iter_image_features(clip.encoder, [(None, open_image(album / "fox.png"))])
    query = query_features(clip.encoder, [fox], [])
    assert nearest_images(image_index, paths, query, 1)[0].similarity == pytest.approx(1, abs=1e-3)
    assert nearest_images(image_index, [], query, 1) == []


@pytest.mark.parametrize(
    "query, terms",
    [
        ("a fox", [("a fox", 1.0)]),
        ("a fox + snow - a sci-fi car", [("a fox", 1.0), ("snow", 1.0), ("a sci-fi car", -1.0)]),
        ("- snow + a fox", [("snow", -1.0), ("a fox", 1.0)]),
    ],
)
def test_a_query_is_a_sum_of_features(query, terms, clip):
    assert parse_query(query) == terms
    total = sum(sign * clip.encoder.text_features([text])[0] for text, sign in terms)
    assert torch.allclose(query_features(clip.encoder, [], terms), F.normalize(total, dim=0), atol=1e-6)


@pytest.mark.parametrize("query", ["", " ", "+ ", "a fox - "])
def test_a_query_without_words_is_rejected(query):
    with pytest.raises(SettingsError, match=r"A search is words, or words with ' \+ ' and ' - ' between them"):
        parse_query(query)
