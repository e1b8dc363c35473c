"""Variations: what they depend on, what they are called, what is recorded and what is refused."""

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
def pictures(tmp_path_factory):
    """A red and a blue picture."""
    place = tmp_path_factory.mktemp("pictures")
    for colour in ("red", "blue"):
        Image.new("RGB", (48, 32), colour).save(place / f"{colour}.png")
    return {colour: place / f"{colour}.png" for colour in ("red", "blue")}


def drawn(pipe, picture, **settings):
    return pipe.run(Settings.from_dict({"seed": 3, "vary": str(picture), **settings}))


def test_another_picture_is_another_variation_and_the_same_one_the_same(pipe, pictures):
    (red,), (again,), (blue,) = (drawn(pipe, pictures[colour]) for colour in ("red", "red", "blue"))
    assert torch.equal(red.pixels, again.pixels)
    assert (red.pixels - blue.pixels).abs().max() > 2 / 255


def test_the_weight_goes_from_the_prompt_alone_to_the_picture_alone(pipe, pictures):
    (prompt,) = pipe.run(Settings("a fox", seed=3))
    assert torch.equal(drawn(pipe, f"{pictures['red']}:0", prompt="a fox")[0].pixels, prompt.pixels)
    (alone,), (half,) = (drawn(pipe, f"{pictures['red']}:{weight}", prompt="a fox") for weight in (1, 0.5))
    assert (half.pixels - prompt.pixels).abs().max() > 1e-3
    assert (half.pixels - alone.pixels).abs().max() > 1e-3
    (other,) = drawn(pipe, pictures["red"], prompt="an owl")
    assert (other.pixels - alone.pixels).abs().max() < 1e-5


def test_the_picture_alone_is_the_prompt_that_the_writer_writes_of_it(pictures):
    pipe = Pipeline.from_pretrained("storybook")
    (said,) = clipgen.caption(pictures["red"])
    (described,), (alone,) = pipe.run(Settings(said, seed=3, steps=2)), drawn(pipe, pictures["red"], steps=2)
    assert (described.pixels - alone.pixels).abs().max() < 1e-5
    (note,) = alone.warnings
    assert (note.code, said in note.message) == ("read-as", True)


def test_each_of_several_is_the_one_that_its_seed_gives_alone(pipe, pictures):
    several = drawn(pipe, pictures["red"], images=3)
    (alone,) = drawn(pipe, pictures["red"], seed=5)
    assert ((several[2].pixels - alone.pixels).abs() > 1 / 255).float().mean() <= 0.001
    assert (several[0].pixels - alone.pixels).abs().max() > 2 / 255


def test_without_words_it_is_no_match_for_words_but_like_its_source(pipe, pictures):
    (result,) = drawn(pipe, pictures["red"])
    assert result.clip is None
    assert -1 <= result.likeness <= 1
    assert {note.code for note in result.warnings} <= {"read-as"}
    assert result.checks == ()
    (worded,) = drawn(pipe, pictures["red"], prompt="a fox")
    assert worded.clip is not None


def test_clip_steers_towards_the_picture_where_there_are_no_words(pipe, pictures):
    strong = {"guidance": "clip", "clip_guidance_scale": 1.0, "steps": 8, "cutouts": 2}
    plain, guided = (drawn(pipe, pictures["red"], steps=8)[0], drawn(pipe, pictures["red"], **strong)[0])
    assert guided.likeness > plain.likeness


def test_it_is_recorded_by_name_and_hash_and_read_back(pipe, pictures, tmp_path):
    (result,) = drawn(pipe, pictures["red"])
    record = result.metadata
    assert record["settings"]["vary"] == "./red.png:1"
    assert record["inputs"] == {"vary": hashlib.sha256(pictures["red"].read_bytes()).hexdigest()}
    assert record["likeness"] == result.likeness
    for name in ("v.png", "v.jpg", "v.webp"):
        restored = read_settings(path := result.save(tmp_path / name))
        assert b"compositeWithTrainedAlgorithmicMedia" in path.read_bytes()
        assert (restored.source, restored.settings.prompt, restored.settings.vary) == ("clipgen", "", "./red.png:1")
        assert restored.record["inputs"] == record["inputs"]
    assert "likeness" not in pipe.run(Settings("a fox", seed=1))[0].metadata


def test_the_function_of_the_package_draws_and_takes_settings(folder, pictures):
    results = list(clipgen.vary(pictures["red"], model=str(folder), images=2, seed=3))
    assert [result.seed for result in results] == [3, 4]
    with pytest.raises(ImageFileError, match="cannot be opened"):
        list(clipgen.vary("./nothing.png", model=str(folder)))


def test_a_model_without_a_writer_refuses_before_it_is_loaded(tiny_v, tiny_epsilon):
    line = r"cannot make variations: it has no coca\. What works: a prompt with --guidance clip --like IMAGE$"
    for model in (tiny_v, tiny_epsilon):
        with pytest.raises(SettingsError, match=line):
            Pipeline.from_pretrained(str(model), settings=[Settings.from_dict({"vary": "fox.png"})])
    with pytest.raises(SettingsError, match=line):
        Pipeline.from_pretrained(str(tiny_v)).run(Settings.from_dict({"vary": "fox.png"}))


def test_a_writer_that_does_not_fit_is_refused(folder, tmp_path):
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


def test_the_field_and_what_goes_with_it():
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


def test_it_is_named_and_spelled_as_a_command(tmp_path):
    from datetime import datetime

    settings = Settings.from_dict({"vary": "a fox.png", "seed": 7, "images": 4})
    assert command_line(settings) == "clipgen vary 'a fox.png:1' --seed 7 --images 4"
    assert command_line(settings.replace(prompt="an owl")) == (
        "clipgen 'an owl' --seed 7 --images 4 --vary 'a fox.png:1'"
    )
    _, stem, _ = output_path(None, settings=settings, seed=7, moment=datetime(2026, 1, 1))
    assert stem == "variation-of-a-fox-7"
