"""README.md tells the truth: its commands run, what it prints is printed, what it names is there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipgen.cli import main
from clipgen.cli.app import app
from clipgen.world.concepts import COLOURS, PLACES, STYLES, concepts

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
WIDTH = 100
INSTALL = {"pip install .", 'pip install -e ".[dev]"', "python -m pytest -q -n auto --dist loadfile"}  # as .ci/run does


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Yields each command after `$ ` with the output below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def facts(text: str) -> list[str]:
    """The lines of an output without what differs from day to day and from weights to weights: numbers."""
    return "\n".join(re.sub(r"\d+", "0", line.rstrip()) for line in text.splitlines()).strip("\n").splitlines()


def output_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs one command, in this process unless the shell is needed, and returns its stdout."""
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
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and a terminal of known width."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    return tmp_path


def test_the_terminal_blocks_are_what_one_sees(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("console"):
        for command, output in commands(block):
            assert facts(output_of(command, capsys)) == facts(output), command


def test_the_commands_to_type_run(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in "".join(blocks("sh")).splitlines():
        if command not in INSTALL:
            assert Path(output_of(command, capsys).strip()).is_file()


def test_the_python_block_runs(desk: Path) -> None:
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert sorted(path.name for path in desk.rglob("*.png")) == [
        "an-owl-at-night-1.png",
        "an-owl-at-night-2.png",
        "fox.png",
        "halfway-0.png",
        "halfway-1.png",
    ]


def tree() -> list[Path]:
    """The paths of the file tree, by its indentation."""
    (block,) = blocks("text")
    above: list[str] = []
    found = []
    for line in block.splitlines():
        name = line.split()[0]
        above[(len(line) - len(line.lstrip())) // 4 :] = [name]
        found.append(ROOT.joinpath(*above))
    return found


def test_the_tree_is_the_tree() -> None:
    named = tree()
    assert not [path for path in named if not path.exists()]
    rooms = {path for path in (ROOT / "clipgen").iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert rooms <= set(named)


def test_links_and_pictures_lead_somewhere() -> None:
    for path in (ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", ROOT / ".github" / "CHANGELOG.md"):
        text = path.read_text("utf-8")
        targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"(?:src|srcset)=\"([^\"]+)\"", text)
        assert not [name for name in targets if "://" not in name and not (path.parent / name).exists()], path


def test_every_flag_of_the_prose_exists(capsys: pytest.CaptureFixture[str]) -> None:
    helps = [
        output_of(f"clipgen {command} --help", capsys)
        for command in (
            "generate",
            "again",
            "vary",
            "batch",
            "info",
            "classify",
            "caption",
            "compare",
            "search",
            "train clip",
            "bench gain",
            "bench quality",
        )
    ]
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", " ".join(re.findall(r"`([^`\n]*)`", README))))
    assert flags - set(re.findall(r"--[a-z][a-z-]+", " ".join(helps))) == set()


def test_storybook_is_as_large_as_it_says() -> None:
    shape = json.loads((ROOT / "clipgen" / "storybook" / "clipgen.json").read_text("utf-8"))["settings"]
    assert f"{shape['width']} x {shape['height']} pixels" in README
    told = re.search(r"(\d+) things .*? (\d+) places, (\d+) colours and (\d+) styles", README, re.DOTALL)
    assert told
    things, *rest = map(int, told.groups())
    assert things in {sum(concept.tier <= tier for concept in concepts().values()) for tier in (1, 2, 3)}
    assert rest == [len(PLACES), len(COLOURS), len(STYLES)]


def test_every_command_of_the_prose_exists() -> None:
    words = set(re.findall(r"`clipgen ([a-z]+)", README))
    assert words <= {command.name or command.callback.__name__ for command in app.registered_commands} | {
        group.name for group in app.registered_groups
    }
