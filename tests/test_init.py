from __future__ import annotations

import subprocess
import sys

import pytest

import clipgen


def test_public_names_are_where_they_say():
    assert clipgen.Settings.__module__ == "clipgen.settings.settings"
    assert clipgen.Pipeline.__module__ == "clipgen.pipeline.pipeline"
    assert issubclass(clipgen.Cancelled, clipgen.ClipgenError)
    assert dir(clipgen) == sorted(dir(clipgen))
    assert set(clipgen.__all__) <= set(dir(clipgen))


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        clipgen.Pipelin  # noqa: B018


def test_settings_come_without_torch():
    code = "import sys, clipgen; clipgen.Settings(prompt='a fox'); print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )


def test_models_are_listed_without_torch():
    code = "import sys; from clipgen.models import list_models; list_models(); print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
