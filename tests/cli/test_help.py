"""Help: light, whole, and in step with Settings."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from clipgen.cli.app import command
from clipgen.cli.flags import Options
from clipgen.cli.help import WIDEST, spelling
from clipgen.settings.settings import FIELDS

from .conftest import Run

HEAVY = {
    "torch",
    "torchvision",
    "transformers",
    "diffusers",
    "accelerate",
    "gradio",
    "numpy",
    "PIL",
    "pydantic",
    "sqlite3",
}
PAGES = [[name] for name in command().commands] + [
    [name, inner] for name, group in command().commands.items() for inner in getattr(group, "commands", {})
]


@pytest.mark.parametrize("words", [["--help"], ["generate", "--help"], ["--version"], []])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom clipgen.cli import main\n"
        f"code = main({words!r})\nprint(code, sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == "0 []\n"
    assert "clipgen" in ran.stdout


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_every_page_prints(run: Run, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ran = run(*words, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[1].startswith(f" Usage: clipgen {' '.join(words)}")
    assert max(len(line) for line in ran.lines) <= WIDEST
    assert "-h, --help" in ran.out


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_pages_fit_the_terminal(run: Run, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in ([], ["generate", "--help"]):
        assert max(len(line) for line in run(*words).lines) <= columns


def test_bare_clipgen_is_help(run: Run) -> None:
    assert run() == run("--help") == run("-h")
    assert run().code == 0


def test_every_settings_field_has_a_flag() -> None:
    for name in ("generate", "again"):
        flags = {flag for param in command().commands[name].params for flag in param.opts}
        assert {f"--{field.replace('_', '-')}" for field in FIELDS} <= flags
        assert {f"--{name.replace('_', '-')}" for name in Options.__dataclass_fields__} <= flags


def test_the_table_of_aliases() -> None:
    aliases = {param.name: set(param.opts) for param in command().commands["generate"].params}
    for name, expected in {
        "prompt": {"-p"},
        "negative_prompt": {"--no"},
        "seed": {"-s"},
        "width": {"-W"},
        "height": {"-H"},
        "scheduler": {"--sampler"},
        "guidance_scale": {"-g", "--cfg"},
        "clip_guidance_scale": {"-c", "--clip-scale"},
        "images": {"-n"},
        "model": {"-m"},
        "output": {"-o"},
        "quiet": {"-q"},
        "verbose": {"-v"},
    }.items():
        assert aliases[name] == {f"--{name.replace('_', '-')}", *expected}


def test_no_flag_of_later_issues() -> None:
    flags = {flag for child in command().commands.values() for param in child.params for flag in param.opts}
    later = {"--grid", "--init", "--retries"}
    assert not flags & later


def test_short_flags_come_first() -> None:
    shown = {param.name: spelling(param) for param in command().commands["generate"].params if param.name != "context"}
    assert shown["seed"] == "-s, --seed N"
    assert shown["guidance_scale"] == "-g, --guidance-scale, --cfg X"
    assert shown["json"] == "--json"
    assert shown["words"] == "PROMPT..."


def test_version(run: Run) -> None:
    assert re.fullmatch(r"clipgen \d+\.\d+\.\d+\n", run("--version").out)
