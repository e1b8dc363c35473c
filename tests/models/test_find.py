from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from clipgen.errors import ModelError, ModelNotFound, SettingsError
from clipgen.models import ModelFolder, ModelId, find_model, list_models, parse_id


@pytest.mark.parametrize(
    ("model", "kind", "name", "revision"),
    [
        ("storybook", "bundled", "storybook", None),
        ("org/name", "hub", "org/name", None),
        ("org/na.me-1_x@v1.0", "hub", "org/na.me-1_x", "v1.0"),
        ("./storybook", "folder", "./storybook", None),
        ("../x", "folder", "../x", None),
        ("..", "folder", "..", None),
        ("/x/y", "folder", "/x/y", None),
        ("~/x", "folder", "~/x", None),
        ("C:\\x", "folder", "C:\\x", None),
        ("d:/x", "folder", "d:/x", None),
    ],
)
def test_parse_id(model, kind, name, revision):
    assert parse_id(model) == ModelId(kind, name, revision)


@pytest.mark.parametrize(
    "model",
    [
        "story",
        "a/b/c",
        "org/..",
        "org/a..b",
        "-org/name",
        "org/name@",
        "org/name@a/b",
        "org/" + "n" * 93,
        "org name/x",
        "https://x.org/y",
        "órg/name",
        "",
    ],
)
def test_an_invalid_id_raises_a_settings_error(model):
    with pytest.raises(SettingsError, match="Unknown model") as error:
        parse_id(model)
    assert error.value.field == "model"
    assert error.value.exit_code == 2


def test_a_misspelled_name_gives_a_suggestion():
    with pytest.raises(SettingsError, match="Did you mean storybook"):
        parse_id("storybok")


def test_a_local_folder_does_not_shadow_a_hub_name(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "org" / "name" / "model_index.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound):
        find_model("org/name")
    assert find_model("./org/name").path == Path("org/name")


def test_a_missing_model_raises_model_not_found(tmp_path):
    with pytest.raises(ModelNotFound, match=r"no model_index.json") as error:
        find_model(str(tmp_path))
    assert error.value.exit_code == 3
    with pytest.raises(
        ModelNotFound, match="'org/name' is not on this machine, and HF_HUB_OFFLINE forbids the download"
    ):
        find_model("org/name")


def test_the_hash_of_a_local_model_is_that_of_its_denoiser(tiny_v):
    weights = tiny_v / "unet" / "diffusion_pytorch_model.safetensors"
    assert find_model(str(tiny_v)).hash == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_the_hash_of_a_hub_model_is_its_blob_name(tmp_path):
    (tmp_path / "unet").mkdir()
    blob = tmp_path / ("ab" * 32)
    blob.write_bytes(b"weights")
    os.symlink(blob, tmp_path / "unet" / "model.safetensors")
    assert ModelFolder("org/name", tmp_path, "hub").hash == "ab" * 32


def test_a_model_without_denoiser_has_no_hash(tmp_path):
    with pytest.raises(ModelError, match="no unet or transformer folder"):
        ModelFolder("./x", tmp_path, "folder").hash  # noqa: B018 - the property raises the error


def test_list_models_starts_with_the_bundled_model():
    assert [model.kind for model in list_models()] in ([], ["bundled"])
