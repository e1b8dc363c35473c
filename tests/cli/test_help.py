"""The help pages: complete, in step with Settings, and without heavy imports."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from clipgen.cli.app import command
from clipgen.cli.flags import Options
from clipgen.cli.help import FINE_TUNING, MAX_OPTION_WIDTH, MAX_WIDTH, default_text, spelling
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


@pytest.mark.parametrize("words", [["--help"], ["generate", "--help"], ["--version"], ["version"], []])
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
    assert max(len(line) for line in ran.lines) <= MAX_WIDTH
    assert "-h, --help" in ran.out


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_pages_fit_the_terminal(run: Run, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in ([], ["generate", "--help"]):
        assert max(len(line) for line in run(*words).lines) <= columns


def test_clipgen_without_arguments_prints_help(run: Run) -> None:
    assert run() == run("--help") == run("-h") == run("help")
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
    spellings = {
        param.name: spelling(param) for param in command().commands["generate"].params if param.name != "context"
    }
    assert spellings["seed"] == ("-s, --seed N", [])
    assert spellings["guidance_scale"] == ("-g, --guidance-scale, --cfg X", [])
    assert spellings["clip_guidance_scale"] == ("-c, --clip-guidance-scale X", ["--clip-scale"])
    assert spellings["through_unet"] == ("--through-unet", ["--no-through-unet"])
    assert spellings["apg"] == ("--apg, --no-apg", [])
    assert spellings["json"] == ("--json", [])
    assert spellings["words"] == ("PROMPT...", [])


def test_version(run: Run) -> None:
    assert re.fullmatch(r"clipgen \d+\.\d+\.\d+\n", run("--version").out)
    assert run("version") == run("--version")


@pytest.mark.parametrize("words", [["generate"], ["models", "pull"], ["config"]], ids=" ".join)
def test_help_command(run: Run, words: list[str]) -> None:
    assert run("help", *words) == run(*words, "--help")


def test_help_of_an_unknown_command(run: Run) -> None:
    ran = run("help", "models", "steal")
    assert (ran.code, ran.out) == (2, "")
    assert "'help' has no command 'models'. Commands: list, families, show, check, pull." in ran.err


def all_commands() -> list[Any]:
    groups = [child for child in command().commands.values() if hasattr(child, "commands")]
    return [*command().commands.values(), *(inner for group in groups for inner in group.commands.values())]


def test_the_option_column_is_narrow() -> None:
    spellings = [spelling(param)[0] for child in all_commands() for param in child.params if param.name != "context"]
    assert max(map(len, spellings)) <= MAX_OPTION_WIDTH


def test_fine_tuning_is_behind_help_all(run: Run) -> None:
    short, full = run("generate", "--help").out, run("generate", "--help-all").out
    assert "--help-all" in short
    fine = [param for param in command().commands["generate"].params if param.rich_help_panel == FINE_TUNING]
    assert len(fine) > 20
    for param in fine:
        name = spelling(param)[0].split(" ")[0]
        assert (f"│ {name}" in short, f"│ {name}" in full) == (False, True)


@pytest.mark.parametrize(
    "words, name, expected",
    [
        (["generate"], "seed", "random"),
        (["generate"], "steps", "from the model"),
        (["generate"], "clip_guidance_scale", "0.25"),
        (["generate"], "quality", "92"),
        (["generate"], "quiet", ""),
        (["classify"], "top", "5"),
        (["history", "list"], "limit", "20"),
        (["ui"], "port", "7860"),
        (["ui"], "open_", "on"),
        (["train", "unet"], "tier", "cpu"),
    ],
)
def test_defaults(words: list[str], name: str, expected: str) -> None:
    child: Any = command()
    for word in words:
        child = child.commands[word]
    assert default_text(next(param for param in child.params if param.name == name)) == expected
