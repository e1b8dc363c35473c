"""Fixtures of the terminal tests: an empty working folder, and `run`, which calls main() and returns its output."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clipgen.cli.app import main
from clipgen.cli.layers import NO_FIELDS


@dataclass(frozen=True)
class Ran:
    """The exit code and the output of one command line."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def data(self) -> dict[str, Any]:
        assert self.events[-1]["type"] == "envelope"
        return self.events[-1]["data"]  # type: ignore[no-any-return]


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, without CLIPGEN_ variables that stand for settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CLIPGEN_") and name not in NO_FIELDS]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process."""

    def ran(*words: str) -> Ran:
        capsys.readouterr()
        code = main(words)
        return Ran(code, *capsys.readouterr())

    return ran


@pytest.fixture
def light_model(tmp_path: Path) -> str:
    """A model folder that has defaults and no weights."""
    folder = tmp_path / "light"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    own = {"steps": 25, "width": 128, "height": 128, "scheduler": "ddim", "guidance_scale": 4.0, "eta": 0.0}
    (folder / "clipgen.json").write_text(json.dumps({"settings": own}))
    return "./light"
