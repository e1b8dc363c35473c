"""Which CLIP scores the images of a model that has none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_cache import add_repository, hub_cache  # noqa: F401 - a fixture

from clipgen import Pipeline, Settings
from clipgen.errors import SettingsError
from clipgen.models.find import DEFAULT_CLIPS, default_clip

FOX = Settings("a fox", seed=3, steps=2, width=64, height=64, cutouts=1)


@pytest.fixture(scope="module")
def bare(tiny_epsilon: Path) -> Pipeline:
    """A model without a CLIP."""
    return Pipeline.from_pretrained(str(tiny_epsilon), "cpu")


@pytest.fixture
def cached_clip(hub_cache: Path, tiny_v: Path) -> str:  # noqa: F811
    """A default CLIP in the hub cache."""
    add_repository(hub_cache, DEFAULT_CLIPS[2], tiny_v / "clip", tiny_v / "tokenizer")
    return DEFAULT_CLIPS[2]


def test_without_any_clip_nothing_is_scored_and_checks_are_refused(bare, hub_cache):  # noqa: F811
    (result,) = bare.run(FOX)
    assert result.clip is None
    assert [note.code for note in result.warnings if note.code == "no-clip"] == ["no-clip"]
    with pytest.raises(SettingsError, match=r"checks need a CLIP, and model .* has none: name one with clip_models"):
        result.check(["a fox"])


def test_a_cached_default_clip_scores_and_its_caption_features_are_kept(bare, cached_clip, private_home):
    (result,) = bare.run(FOX)
    assert result.clip.model == cached_clip
    assert not result.clip.self_graded
    assert {check.subject for check in result.checks} == {"fox"}
    (kept,) = (private_home / "captions").rglob("*.safetensors")
    kept.write_bytes(b"damaged")
    (again,) = Pipeline.from_pretrained(bare.origin.model, "cpu").run(FOX)
    assert again.clip.percentile == result.clip.percentile


def test_a_default_clip_guides_and_the_record_names_it(bare, cached_clip):
    (result,) = bare.run(FOX.replace(guidance="clip"))
    assert result.metadata["settings"]["clip_models"] == [cached_clip]
    assert result.clip.self_graded


def test_a_clip_without_weights_is_no_default(hub_cache, tiny_v):  # noqa: F811
    snapshot = add_repository(hub_cache, DEFAULT_CLIPS[0], tiny_v / "clip", tiny_v / "tokenizer")
    assert default_clip() == DEFAULT_CLIPS[0]
    (snapshot / "model.safetensors").unlink()
    assert default_clip() is None


def test_a_named_clip_scores_before_a_default_one(bare, cached_clip, tiny_v):
    named = FOX.replace(clip_models=[str(tiny_v / "clip")])
    scores = [bare.run(settings)[0].clip for settings in (named, named.replace(guidance="clip"))]
    assert [(score.model, score.self_graded) for score in scores] == [("clip", False), ("clip", True)]
