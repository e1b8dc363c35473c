"""The public names of the package: where they come from, what they cost to import, and what editors see of them."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import clipgen
from clipgen.settings.keywords import SettingsKeywords, VaryKeywords

ROOT = Path(__file__).resolve().parents[1]


def test_public_names_come_from_their_modules():
    assert clipgen.Settings.__module__ == "clipgen.settings.settings"
    assert clipgen.Pipeline.__module__ == "clipgen.pipeline.pipeline"
    assert issubclass(clipgen.Cancelled, clipgen.ClipgenError)
    assert dir(clipgen) == sorted(dir(clipgen))
    assert set(clipgen.__all__) <= set(dir(clipgen))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        clipgen.Pipelin  # noqa: B018


def test_the_version_is_that_of_the_distribution():
    assert clipgen.__version__ == importlib.metadata.version("clipgen")


@pytest.mark.parametrize(
    "code",
    [
        "clipgen.Settings(prompt='a fox')",
        "clipgen.__version__",
        "clipgen.bundled_model()",
        "from clipgen.models import list_models; list_models()",
    ],
)
def test_light_names_do_not_import_torch(code):
    code = f"import sys, clipgen; {code}; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_keyword_types_are_those_of_the_settings_fields():
    fields = typing.get_type_hints(clipgen.Settings)
    assert typing.get_type_hints(VaryKeywords) == fields
    assert typing.get_type_hints(SettingsKeywords) == {name: fields[name] for name in fields if name != "prompt"}


def test_errors_are_builtin_errors_too():
    with pytest.raises(ValueError, match="steps must be 1 to 150"):
        clipgen.Settings("a fox", steps=0)
    with pytest.raises(FileNotFoundError, match=r"There is no folder '\./nowhere'\."):
        clipgen.Pipeline.from_pretrained("./nowhere")
    error = clipgen.ModelNotFound("missing", field="model")
    assert (str(error), error.field, error.exit_code) == ("missing", "model", 3)


def test_the_bundled_model_is_a_folder():
    assert (clipgen.bundled_model() / "model_index.json").is_file()
    assert clipgen.bundled_model("storybook") == clipgen.bundled_model()
    with pytest.raises(clipgen.ModelNotFound, match=r"no bundled model 'x'\. Bundled: storybook"):
        clipgen.bundled_model("x")


def test_a_checkout_that_shadows_the_installed_package_has_ui_and_presets(tmp_path):
    """`python -m clipgen` in a checkout imports ./clipgen, whose ui/ and presets/ are next to it."""
    checkout = tmp_path / "checkout"
    for name in ("clipgen", "presets", "ui"):
        ignored = shutil.ignore_patterns("storybook", "__pycache__")
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", checkout)
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'Editable' not in repr(f)]\n"
        "import clipgen.ui, clipgen.presets; from clipgen.settings.preset import load_preset\n"
        "print(clipgen.__file__, clipgen.ui.__file__, load_preset('fast').path, sep='\\n')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(Path(line).is_relative_to(checkout) for line in run.stdout.splitlines())
