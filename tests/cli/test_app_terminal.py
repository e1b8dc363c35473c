"""Output in a pseudo-terminal: progress bar, images, tables and the request for sixel support."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clipgen import history
from clipgen.cli.app import main
from clipgen.cli.terminal_image import ask_terminal, lists_sixel
from clipgen.settings.settings import Settings

pty = pytest.importorskip("pty")

SIXEL = b"\x1b[?62;4;22c"


class Terminal:
    """A pseudo-terminal that records the output and answers a device attributes request."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.master, self.slave = pty.openpty()
        self.answer = SIXEL
        self.output = b""
        self._patch = patch
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.master, 65_536)
            except OSError:  # the slave is closed
                return
            self.output += data
            if b"\x1b[c" in data and self.answer:
                os.write(self.master, self.answer)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Makes it stdin, stdout and stderr of this process inside the block."""
        with open(self.slave, "w") as out, open(self.slave, closefd=False) as keys:
            for name, stream in (("stdout", out), ("stderr", out), ("stdin", keys)):
                self._patch.setattr(f"sys.{name}", stream)
            yield
            self._patch.undo()
        self._reader.join(10)
        os.close(self.master)

    @property
    def text(self) -> str:
        return self.output.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal with 256 colours, 90 columns and sixel support."""
    for name in ("TMUX", "KITTY_WINDOW_ID", "ITERM_SESSION_ID", "TERM_PROGRAM", "COLORTERM", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "90")
    return Terminal(pytest.MonkeyPatch())


def test_sixel_support_is_requested(terminal: Terminal) -> None:
    with terminal.attached():
        assert lists_sixel(ask_terminal())


def test_a_terminal_that_does_not_reply_has_no_sixel(terminal: Terminal) -> None:
    terminal.answer = b""
    with terminal.attached():
        assert ask_terminal() == ""


def draw(terminal: Terminal, model: Path, *words: str) -> str:
    with terminal.attached():
        assert main(["a", "fox", "-s", "7,8", "-m", str(model), "--steps", "3", "-o", "made/", *words]) == 0
    return terminal.text


def test_bar_image_and_path(terminal: Terminal, tiny_v: Path) -> None:
    shown = draw(terminal, tiny_v)
    assert "Loading" in shown
    assert re.search(r"picture 1 of 2  \d/3  .*ETA 0:0\d  CLIP [▁-█]+ \d+→\d+%", shown)
    assert shown.count('\x1bP0;1;0q"1;1;') == 2
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")  # the cursor is back
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.replace("\r", ""))
    for seed in (7, 8):
        assert re.search(rf"seed {seed}  [\d.]+ s  matches better than \d+% of \d+ other captions, \w+\n", plain)
        assert f"made/a-fox-{seed}.png\n" in plain
    assert shown.rstrip().endswith("made/a-fox-8.png")


def test_the_bar_labels_the_twin_and_both_have_a_curve(terminal: Terminal, tiny_v: Path) -> None:
    shown = draw(terminal, tiny_v, "-c", "0.5", "--compare", "--no-show")
    assert re.search(r"unguided  picture 1 of 4  \d/3  .*CLIP [▁-█]+ \d+→\d+%", shown)
    assert re.search(r"(?<!unguided  )picture [24] of 4  \d/3  .*CLIP [▁-█]+ \d+→\d+%", shown)


@pytest.mark.parametrize(
    "words, bar, picture",
    [
        (("--no-show",), True, False),
        (("-q",), False, False),
        (("--json",), False, False),
        (("--show", "blocks"), True, True),
    ],
)
def test_quiet_options_leave_out_bar_and_image(
    terminal: Terminal, tiny_epsilon: Path, words: tuple[str, ...], bar: bool, picture: bool
) -> None:
    shown = draw(terminal, tiny_epsilon, *words)
    assert ("ETA" in shown) is bar
    assert ("▀" in shown) is picture
    assert "\x1bP" not in shown
    assert "made/a-fox-8.png" in shown


def test_a_dumb_terminal_gets_plain_lines(
    terminal: Terminal, tiny_epsilon: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    shown = draw(terminal, tiny_epsilon)
    assert "\x1b" not in shown
    assert "ETA" not in shown


def test_no_colour(terminal: Terminal, tiny_epsilon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = draw(terminal, tiny_epsilon, "--no-show")
    assert not re.search(r"\x1b\[(3[0-7]|38;|9[0-7])", shown)


def test_image_bytes_are_not_written_to_a_terminal(terminal: Terminal, tiny_epsilon: Path) -> None:
    with terminal.attached():
        assert main(["a fox", "-m", str(tiny_epsilon), "-o", "-"]) == 2
    assert "--output - writes bytes; redirect them to a file" in terminal.text


def test_tables_have_headings_in_a_terminal(terminal: Terminal) -> None:
    with terminal.attached():
        assert main(["presets", "list"]) == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.text)
    assert re.search(r"name +from +about", shown)
    assert "\t" not in shown


def screen_lines(output: str) -> list[str]:
    """Returns the lines on the screen after the output: carriage return, erase line and cursor up are applied."""
    lines, row, column = [""], 0, 0
    for code, text in re.findall(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)|([^\x1b\r\n]+)", output):
        if text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
        elif code == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        elif code == "\r":
            column = 0
        elif code.endswith("K"):
            lines[row] = "" if code == "\x1b[2K" else lines[row][:column]
        elif code.endswith("A"):
            row -= int(code[2:-1] or 1)
    return lines


@pytest.mark.parametrize(
    "words",
    [
        ("-n", "3", "--keep", "1"),
        ("--budget", "1.5"),
        ("-c", "0.5", "--compare"),
        ("-n", "4"),
        ("--require", "a fox", "-v"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_bar_never_shares_a_line(
    terminal: Terminal, tiny_v: Path, words: tuple[str, ...], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with terminal.attached():
        main(["a fox", "-s", "7", "-m", str(tiny_v), "--steps", "3", "--no-show", *words])
    frames = terminal.text.split("\x1b[2K")
    bars = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame) for frame in frames if "steps/s" in frame or "s/step" in frame]
    assert bars
    for line in screen_lines(terminal.text):
        assert "ETA" not in line
        assert "━" not in line
    for bar in bars:
        first = bar.splitlines()[0]
        assert not re.search(r"seed|note|warning|outputs/", first.split("s/step")[-1].split("steps/s")[-1])
        assert len(first) <= int(columns)


def test_tables_do_not_break_paths(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = Path("outputs/2026-11-23/a-fox-in-a-very-deep-snow-with-a-long-name-4294967295.png")
    path.parent.mkdir(parents=True)
    path.touch()
    history.record(path, Settings("a fox in a very deep snow, " * 5, seed=4294967295))
    with terminal.attached():
        assert main(["history"]) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.text).splitlines()
    assert f"    {path}" in lines
    assert max(map(len, lines)) <= 80
