from __future__ import annotations

import pytest
import torch
from PIL import Image

from clipgen.clip.score import Score
from clipgen.errors import OutputError, SettingsError
from clipgen.image_file import read_settings
from clipgen.pipeline.result import Origin, Preview, ProgressEstimate, Result
from clipgen.settings.settings import Note, Settings

SETTINGS = Settings(
    prompt="a fox in snow", seed=42, steps=4, width=64, height=64, scheduler="ddim", guidance_scale=4.0, eta=0.0
)


def result(**changes):
    return Result(
        **{
            "pixels": torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)),
            "index": 0,
            "seed": 42,
            "settings": SETTINGS,
            "clip": Score("storybook/clip", 0.312, 0.78, 97.4, 998),
            "warnings": (Note("prompt-cut", "prompt", "left out: 'and more'"),),
            "seconds": 1.5,
            "origin": Origin("storybook", "stable_diffusion", "cpu", "float32", lambda: "ab" * 32),
            **changes,
        }
    )


def test_the_record_has_all_sections():
    record = result().metadata
    assert record["schema"] == "clipgen/1"
    assert record["settings"] == SETTINGS.to_dict()
    assert record["clip"]["percentile"] == 97.4
    assert record["model"] == {"name": "storybook", "hash": "ab" * 32, "family": "stable_diffusion"}
    assert record["runtime"]["rng"] == "cpu"
    assert record["warnings"] == [{"code": "prompt-cut", "field": "prompt", "message": "left out: 'and more'"}]


@pytest.mark.parametrize(("name", "format"), [("fox.png", "PNG"), ("fox.jpg", "JPEG"), ("fox.webp", "WEBP")])
def test_settings_are_read_back_from_a_saved_image(tmp_path, name, format):
    saved = result()
    path = saved.save(tmp_path / name)
    assert saved.path == path == tmp_path / name
    with Image.open(path) as image:
        assert (image.format, image.size) == (format, (64, 64))
    assert read_settings(path).settings == SETTINGS


def test_nothing_is_overwritten(tmp_path):
    assert [result().save(tmp_path / "fox.png").name for _ in range(3)] == ["fox.png", "fox-1.png", "fox-2.png"]


def test_a_folder_gets_the_default_file_name(tmp_path):
    assert result().save(tmp_path, format="webp").name == "a-fox-in-snow-42.webp"
    assert result().save(tmp_path / "$slug-$percent").name == "a-fox-in-snow-97.png"


def test_an_invalid_path_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        result().save(tmp_path / "file" / "fox.png")
    with pytest.raises(SettingsError, match="Unknown picture format"):
        result().save(tmp_path / "fox.gif")


def test_the_hash_is_computed_on_first_access():
    calls = []
    saved = result(origin=Origin("x", "y", "cpu", "float32", lambda: calls.append(1) or None))
    assert saved.image.size == (64, 64)
    assert calls == []
    assert saved.metadata["model"]["hash"] is None
    assert saved.metadata is saved.metadata
    assert calls == [1]


def test_a_preview_is_decoded_once():
    calls = []
    preview = Preview(lambda: calls.append(1) or torch.zeros(2, 3, 8, 8), None)
    assert preview.pixels is preview.pixels
    assert calls == [1]
    assert preview.scores is None


def test_the_estimate_uses_the_median_of_the_last_five_steps():
    estimate = ProgressEstimate(batches=1)
    assert estimate.add_step(9.0, 0, 10) is None
    seconds = [estimate.add_step(1.0, index, 10) for index in range(1, 10)]
    assert seconds[-1] == pytest.approx(1.0)
    assert seconds[4] == pytest.approx(5.0)


def test_the_estimate_includes_later_batches():
    estimate = ProgressEstimate(batches=3)
    estimate.add_step(1.0, 0, 2)
    assert estimate.add_step(1.0, 1, 2) == pytest.approx(2 * 2 + 3)
    estimate.add_batch(0.5)
    assert estimate.add_step(1.0, 0, 2) == pytest.approx(1 + 2 + 2 * 0.5)
