"""The index looks at what is new, and a search is a sum of vectors."""

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
def album(drawn: dict[str, Path], tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for name, text in (("fox", FOX), ("car", CAR)):
        shutil.copy(drawn[text], folder / f"{name}.png")
    return folder


def index():
    return open_index(find_clip("storybook").path)


def surprised(path: Path, error: ImageFileError) -> None:
    raise AssertionError(path)


def names(paths) -> list[str]:
    return sorted(path.name for path in paths)


def test_only_what_is_new_or_changed_is_looked_at(album, clip, drawn):
    encoder = clip.encoder
    assert names(index().update(find_images([album]), encoder, surprised)) == ["car.png", "fox.png"]
    assert names(index().update(find_images([album]), encoder, surprised)) == []
    shutil.copy(drawn[FOX], album / "again.png")
    shutil.copy(drawn[FOX], album / "car.png")
    assert names(index().update(find_images([album]), encoder, surprised)) == ["again.png", "car.png"]
    (album / "again.png").unlink()
    assert names(index().update(find_images([album]), encoder, surprised)) == []
    assert names(index().features([album / "again.png", album / "fox.png"])[0]) == ["fox.png"]


def test_what_was_seen_before_a_stop_is_kept(album, clip):
    updates = index().update(find_images([album]), clip.encoder, surprised)
    next(updates)
    updates.close()
    assert len(names(index().update(find_images([album]), clip.encoder, surprised))) == 1


def test_a_torn_file_begins_anew(album, clip):
    list(index().update(find_images([album]), clip.encoder, surprised))
    index().file.write_bytes(b"torn")
    assert len(list(index().update(find_images([album]), clip.encoder, surprised))) == 2


def test_another_clip_has_another_index(clip, tmp_path):
    copy = shutil.copytree(find_clip("storybook").path, tmp_path / "clip", copy_function=shutil.copy)
    assert open_index(copy).file != index().file


def test_the_closest_comes_first(album, clip):
    paths, seen = list(find_images([album])), index()
    list(seen.update(paths, clip.encoder, surprised))
    for text, name in ((FOX, "fox.png"), (CAR, "car.png")):
        found = nearest_images(seen, paths, query_features(clip.encoder, [(text, 1.0)]), 5)
        assert found[0].path.name == name
        assert found[0].similarity > found[1].similarity
    [(_, fox)] = iter_image_features(clip.encoder, [(None, open_image(album / "fox.png"))])
    assert nearest_images(seen, paths, query_features(clip.encoder, [], [fox]), 1)[0].similarity == pytest.approx(
        1, abs=1e-3
    )
    assert nearest_images(seen, [], query_features(clip.encoder, [], [fox]), 1) == []


@pytest.mark.parametrize(
    "query, terms",
    [
        ("a fox", [("a fox", 1.0)]),
        ("a fox + snow - a sci-fi car", [("a fox", 1.0), ("snow", 1.0), ("a sci-fi car", -1.0)]),
        ("- snow + a fox", [("snow", -1.0), ("a fox", 1.0)]),
    ],
)
def test_a_query_is_a_sum(query, terms, clip):
    assert parse_query(query) == terms
    total = sum(sign * clip.encoder.text_features([text])[0] for text, sign in terms)
    assert torch.allclose(query_features(clip.encoder, terms), F.normalize(total, dim=0), atol=1e-6)


@pytest.mark.parametrize("query", ["", " ", "+ ", "a fox - "])
def test_a_sum_without_words_is_refused(query):
    with pytest.raises(SettingsError, match=r"A search is words, or words with ' \+ ' and ' - ' between them"):
        parse_query(query)
