"""In a real (pseudo) terminal: the bar comes and goes, the picture and the path stay, sixel is asked for."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clipgen.cli.app import main
from clipgen.cli.terminal_image import ask_terminal, lists_sixel

pty = pytest.importorskip("pty")

SIXEL = b"\x1b[?62;4;22c"


class Terminal:
    """A pseudo-terminal that records what it is shown and may answer a question about itself."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.master, self.slave = pty.openpty()
        self.answer = SIXEL
        self.shown = b""
        self._patch = patch
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.master, 65_536)
            except OSError:  # the other end is closed
                return
            self.shown += data
            if b"\x1b[c" in data and self.answer:
                os.write(self.master, self.answer)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Makes it stdin, stdout and stderr of this process; inside the test, where pytest has set its own."""
        with open(self.slave, "w") as out, open(self.slave, closefd=False) as keys:
            for name, stream in (("stdout", out), ("stderr", out), ("stdin", keys)):
                self._patch.setattr(f"sys.{name}", stream)
            yield
            self._patch.undo()
        self._reader.join(10)
        os.close(self.master)

    @property
    def text(self) -> str:
        return self.shown.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 256 colours and 90 columns that speaks sixel."""
    for name in ("TMUX", "KITTY_WINDOW_ID", "ITERM_SESSION_ID", "TERM_PROGRAM", "COLORTERM", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "90")
    return Terminal(pytest.MonkeyPatch())


def test_the_terminal_is_asked(terminal: Terminal) -> None:
    with terminal.here():
        assert lists_sixel(ask_terminal())


def test_a_silent_terminal_is_no_sixel(terminal: Terminal) -> None:
    terminal.answer = b""
    with terminal.here():
        assert ask_terminal() == ""


def draw(terminal: Terminal, model: Path, *words: str) -> str:
    with terminal.here():
        assert main(["a", "fox", "-s", "7,8", "-m", str(model), "--steps", "3", "-o", "made/", *words]) == 0
    return terminal.text


def test_bar_picture_and_path(terminal: Terminal, tiny_v: Path) -> None:
    shown = draw(terminal, tiny_v)
    assert "Loading" in shown
    assert re.search(r"picture 1 of 2  \d/3  .*ETA 0:0\d  CLIP [▁-█]+ \d+→\d+ %", shown)
    assert shown.count('\x1bP0;1;0q"1;1;') == 2
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")  # the cursor is back
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.replace("\r", ""))
    for seed in (7, 8):
        assert re.search(rf"seed {seed}  [\d.]+ s  matches better than \d+ % of \d+ other captions, \w+\n", plain)
        assert f"made/a-fox-{seed}.png\n" in plain
    assert shown.rstrip().endswith("made/a-fox-8.png")


def test_a_twin_says_so_and_both_have_their_curve(terminal: Terminal, tiny_v: Path) -> None:
    shown = draw(terminal, tiny_v, "-c", "0.5", "--compare", "--no-show")
    assert re.search(r"unguided  picture 1 of 4  \d/3  .*CLIP [▁-█]+ \d+→\d+ %", shown)
    assert re.search(r"(?<!unguided  )picture [24] of 4  \d/3  .*CLIP [▁-█]+ \d+→\d+ %", shown)


@pytest.mark.parametrize(
    "words, bar, picture",
    [
        (("--no-show",), True, False),
        (("-q",), False, False),
        (("--json",), False, False),
        (("--show", "blocks"), True, True),
    ],
)
def test_what_is_left_out(
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


def test_bytes_do_not_go_to_a_terminal(terminal: Terminal, tiny_epsilon: Path) -> None:
    with terminal.here():
        assert main(["a fox", "-m", str(tiny_epsilon), "-o", "-"]) == 2
    assert "--output - writes bytes; send them to a file" in terminal.text


def test_tables_have_headings_in_a_terminal(terminal: Terminal) -> None:
    with terminal.here():
        assert main(["presets", "list"]) == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.text)
    assert re.search(r"name +from +about", shown)
    assert "\t" not in shown
