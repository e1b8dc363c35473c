"""Image variations: seeds, weights, records, file names and errors."""

from __future__ import annotations

import hashlib

import pytest
import tiny
import torch
from PIL import Image

import clipgen
from clipgen import ImageFileError, Pipeline, Settings, SettingsError, read_settings
from clipgen.families import LAYOUTS
from clipgen.image_file.names import output_path
from clipgen.models import ModelFolder, preflight
from clipgen.report.command_line import command_line
from clipgen.settings.checks import SERVED
from clipgen.settings.settings import validate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_varying(tmp_path_factory.mktemp("models") / "tiny-varying")


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The paths of a red and a blue image."""
    folder = tmp_path_factory.mktemp("pictures")
    for colour in ("red", "blue"):
        Image.new("RGB", (48, 32), colour).save(folder / f"{colour}.png")
    return {colour: folder / f"{colour}.png" for colour in ("red", "blue")}


def run_variation(pipe, image, **settings):
    return pipe.run(Settings.from_dict({"seed": 3, "vary": str(image), **settings}))


def test_a_variation_is_reproducible_and_depends_on_the_source_image(pipe, images):
    (red,), (again,), (blue,) = (run_variation(pipe, images[colour]) for colour in ("red", "red", "blue"))
    assert torch.equal(red.pixels, again.pixels)
    assert (red.pixels - blue.pixels).abs().max() > 2 / 255


def test_weight_0_uses_only_the_prompt_and_weight_1_only_the_image(pipe, images):
    (prompt,) = pipe.run(Settings("a fox", seed=3))
    assert torch.equal(run_variation(pipe, f"{images['red']}:0", prompt="a fox")[0].pixels, prompt.pixels)
    (alone,), (half,) = (run_variation(pipe, f"{images['red']}:{weight}", prompt="a fox") for weight in (1, 0.5))
    assert (half.pixels - prompt.pixels).abs().max() > 1e-3
    assert (half.pixels - alone.pixels).abs().max() > 1e-3
    (other,) = run_variation(pipe, images["red"], prompt="an owl")
    assert (other.pixels - alone.pixels).abs().max() < 1e-5


def test_a_variation_without_a_prompt_equals_its_caption_as_prompt(images):
    pipe = Pipeline.from_pretrained("storybook")
    (caption,) = clipgen.caption(images["red"])
    (described,), (alone,) = pipe.run(Settings(caption, seed=3, steps=2)), run_variation(pipe, images["red"], steps=2)
    assert (described.pixels - alone.pixels).abs().max() < 1e-5
    (note,) = alone.warnings
    assert (note.code, caption in note.message) == ("read-as", True)


def test_each_variation_of_a_run_equals_a_run_with_its_seed(pipe, images):
    several = run_variation(pipe, images["red"], images=3)
    (alone,) = run_variation(pipe, images["red"], seed=5)
    assert ((several[2].pixels - alone.pixels).abs() > 1 / 255).float().mean() <= 0.001
    assert (several[0].pixels - alone.pixels).abs().max() > 2 / 255


def test_without_a_prompt_there_is_a_likeness_and_no_clip_score(pipe, images):
    (result,) = run_variation(pipe, images["red"])
    assert result.clip is None
    assert -1 <= result.likeness <= 1
    assert {note.code for note in result.warnings} <= {"read-as"}
    assert result.checks == ()
    (worded,) = run_variation(pipe, images["red"], prompt="a fox")
    assert worded.clip is not None


def test_guidance_without_a_prompt_increases_the_likeness(pipe, images):
    strong = {"guidance": "clip", "clip_guidance_scale": 1.0, "steps": 8, "cutouts": 2}
    plain, guided = (run_variation(pipe, images["red"], steps=8)[0], run_variation(pipe, images["red"], **strong)[0])
    assert guided.likeness > plain.likeness


def test_the_record_has_the_name_and_hash_of_the_source_image(pipe, images, tmp_path):
    (result,) = run_variation(pipe, images["red"])
    record = result.metadata
    assert record["settings"]["vary"] == "./red.png:1"
    assert record["inputs"] == {"vary": hashlib.sha256(images["red"].read_bytes()).hexdigest()}
    assert record["likeness"] == result.likeness
    for name in ("v.png", "v.jpg", "v.webp"):
        restored = read_settings(path := result.save(tmp_path / name))
        assert b"compositeWithTrainedAlgorithmicMedia" in path.read_bytes()
        assert (restored.source, restored.settings.prompt, restored.settings.vary) == ("clipgen", "", "./red.png:1")
        assert restored.record["inputs"] == record["inputs"]
    assert "likeness" not in pipe.run(Settings("a fox", seed=1))[0].metadata


def test_clipgen_vary_accepts_settings(folder, images):
    results = list(clipgen.vary(images["red"], model=str(folder), images=2, seed=3))
    assert [result.seed for result in results] == [3, 4]
    with pytest.raises(ImageFileError, match="cannot be opened"):
        list(clipgen.vary("./nothing.png", model=str(folder)))


def test_a_model_without_coca_is_refused_before_it_is_loaded(tiny_v, tiny_epsilon):
    message = r"cannot make variations: it has no coca\. What works: a prompt with --guidance clip --like IMAGE$"
    for model in (tiny_v, tiny_epsilon):
        with pytest.raises(SettingsError, match=message):
            Pipeline.from_pretrained(str(model), settings=[Settings.from_dict({"vary": "fox.png"})])
    with pytest.raises(SettingsError, match=message):
        Pipeline.from_pretrained(str(tiny_v)).run(Settings.from_dict({"vary": "fox.png"}))


def test_a_coca_that_does_not_match_the_clip_is_refused(folder, tmp_path):
    import shutil

    other = shutil.copytree(folder, tmp_path / "model")
    tiny.coca(tiny.tokenizer(32), states=16).save_pretrained(other / "coca")
    with pytest.raises(clipgen.ModelError, match=r"coca expects patch states of size 16, its CLIP gives 32\."):
        preflight(ModelFolder("./model", other, "folder"), LAYOUTS)
    words = tiny.tokenizer(32)
    words.add_tokens(["fox"])
    tiny.coca(words).save_pretrained(other / "coca")
    with pytest.raises(clipgen.ModelError, match=r"coca has a vocabulary of 515 tokens, its CLIP of 514\."):
        preflight(ModelFolder("./model", other, "folder"), LAYOUTS)
    shutil.rmtree(other / "clip")
    with pytest.raises(clipgen.ModelError, match=r"coca needs a clip folder, and the model has none\."):
        preflight(ModelFolder("./model", other, "folder"), LAYOUTS)


def test_valid_and_invalid_values_of_vary():
    settings = Settings.from_dict({"vary": "pics/a red fox.png:0.5"})
    assert (settings.prompt, settings.title) == ("", "variation of a red fox")
    assert settings.replace(prompt="an owl").title == "an owl"
    assert Settings.from_dict({"vary": "fox.png"}).vary == "fox.png:1"
    for bad in ("fox.png:2", "fox.png:-1", ":0.5", ""):
        with pytest.raises(SettingsError, match="vary must"):
            Settings.from_dict({"vary": bad})
    with pytest.raises(SettingsError, match="prompt must not be empty"):
        Settings("")
    with pytest.raises(SettingsError, match="vary names a file, which only the terminal and Python accept"):
        validate(settings, SERVED)


def test_command_line_and_file_name_of_a_variation(tmp_path):
    from datetime import datetime

    settings = Settings.from_dict({"vary": "a fox.png", "seed": 7, "images": 4})
    assert command_line(settings) == "clipgen vary 'a fox.png:1' --seed 7 --images 4"
    assert command_line(settings.replace(prompt="an owl")) == (
        "clipgen 'an owl' --seed 7 --images 4 --vary 'a fox.png:1'"
    )
    _, stem, _ = output_path(None, settings=settings, seed=7, moment=datetime(2026, 1, 1))
    assert stem == "variation-of-a-fox-7"
