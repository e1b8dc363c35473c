"""The documentation is true: its commands run and print what it says, and its tables follow from the code."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from clipgen.cli import main
from clipgen.cli.app import app
from clipgen.world.concepts import COLOURS, PLACES, STYLES, concepts

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCS = sorted((ROOT / "docs").glob("*.md"))
TEXTS = {path: path.read_text("utf-8") for path in (ROOT / "README.md", *DOCS)}
PAGES = (*TEXTS, *sorted((ROOT / ".github").glob("*.md")), ROOT / "clipgen" / "storybook" / "MODEL_CARD.md")
WIDTH = 100
INSTALL = {"pip install .", 'pip install -e ".[dev]"', "python -m pytest -q -n auto --dist loadfile"}  # as .ci/run does


def blocks(language: str, text: str = README) -> list[str]:
    """Returns the contents of all fenced code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Yields each command after `$ ` with the output below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def without_dates(text: str) -> list[str]:
    """Returns the lines of an output with today's date replaced; all else must be equal."""
    lines = text.strip("\n").splitlines()
    return [re.sub(r"\d{4}-\d\d-\d\d", "DATE", line.rstrip()) for line in lines]


def output_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command, in this process unless it needs a shell, and returns its stdout."""
    if "|" in re.sub(r"'.*?'|\".*?\"", "", command):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        run = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False
        )
        assert run.returncode == 0, run.stderr
        return run.stdout
    program, *words = shlex.split(command)
    assert program == "clipgen"
    capsys.readouterr()
    code = main(words)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and a terminal of known width."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    return tmp_path


def test_console_blocks_print_what_they_show(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("console"):
        for command, output in commands(block):
            assert without_dates(output_of(command, capsys)) == without_dates(output), command


def test_sh_blocks_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in "".join(blocks("sh")).splitlines():
        if command not in INSTALL:
            assert Path(output_of(command, capsys).strip()).is_file()


def test_python_blocks_run(folder: Path) -> None:
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert sorted(path.name for path in folder.rglob("*.png")) == [
        "an-owl-at-night-1.png",
        "an-owl-at-night-2.png",
        "fox.png",
        "halfway-0.png",
        "halfway-1.png",
    ]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_python_blocks_of_the_reference_are_valid(path: Path) -> None:
    for block in blocks("python", TEXTS[path]):
        compile(block, path.name, "exec")


def generator() -> ModuleType:
    """Loads docs/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["settings.md", "commands.md"])
def test_generated_parts_are_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    assert generator().updated(name) == TEXTS[ROOT / "docs" / name], "run python docs/generate.py"


def tree() -> list[Path]:
    """Returns the paths of the file tree in README.md, by indentation."""
    (block,) = blocks("text")
    parents: list[str] = []
    paths = []
    for line in block.splitlines():
        name = line.split()[0]
        parents[(len(line) - len(line.lstrip())) // 4 :] = [name]
        paths.append(ROOT.joinpath(*parents))
    return paths


def test_the_file_tree_is_complete() -> None:
    paths = tree()
    assert not [path for path in paths if not path.exists()]
    existing = {path for path in (ROOT / "clipgen").iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert existing <= set(paths)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_and_images_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"(?:src|srcset)=\"([^\"]+)\"", text)
    assert not [name for name in targets if "://" not in name and not (path.parent / name).exists()]


def documented(pattern: str) -> set[str]:
    """Returns what a pattern finds in the inline code and the sh blocks of all documentation."""
    code = [each for text in TEXTS.values() for each in (*re.findall(r"`([^`\n]+)`", text), *blocks("sh", text))]
    return set(re.findall(pattern, "\n".join(code)))


def test_documented_flags_exist(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["info", "classify", "caption", "search", "ui", "models show", "train clip", "bench gain", "bench quality"]
    helps = [output_of(f"clipgen {name} --help", capsys) for name in names]
    drawing = ["generate", "again", "vary", "batch", "compare"]
    helps += [output_of(f"clipgen {name} --help-all", capsys) for name in drawing]
    known = set(re.findall(r"--[a-z][a-z-]+", " ".join(helps)))
    assert documented(r"(?<![\w-])--[a-z][a-z-]+") - known == {"--dist"}  # of pytest


def test_documented_commands_exist() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    groups = {group.name for group in app.registered_groups}
    assert documented(r"(?:^|\n| )clipgen ([a-z]+)(?![a-z.:-])") <= names | groups


def test_storybook_is_as_large_as_documented() -> None:
    settings = json.loads((ROOT / "clipgen" / "storybook" / "clipgen.json").read_text("utf-8"))["settings"]
    assert f"{settings['width']} x {settings['height']} pixels" in README
    numbers = re.search(r"(\d+) things in (\d+) places, (\d+) colours and (\d+) styles", README)
    assert numbers
    things, *rest = map(int, numbers.groups())
    assert things in {sum(concept.tier <= tier for concept in concepts().values()) for tier in (1, 2, 3)}
    assert rest == [len(PLACES), len(COLOURS), len(STYLES)]
