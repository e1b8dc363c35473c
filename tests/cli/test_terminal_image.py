"""Terminal images: bytes equal to fixtures, and the protocol for a table of environments."""

from __future__ import annotations

import base64
import io
import os
import re

import pytest
from PIL import Image

from clipgen.cli.terminal_image import choose, iterm2, kitty, lists_sixel, render, width_for

RED, BLUE = (255, 0, 0), (0, 0, 255)
SIXEL_REPLY, PLAIN_REPLY = "\x1b[?62;4;22c", "\x1b[?62;22c"

# environment, reply to DA1 -> protocol of `auto`
ENVIRONMENTS = [
    ({"TERM": "xterm-kitty"}, "", "kitty"),
    ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "", "kitty"),
    ({"TERM": "xterm-ghostty"}, "", "kitty"),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "", "kitty"),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "", "iterm2"),
    ({"TERM": "xterm-256color", "ITERM_SESSION_ID": "w0t0p0"}, "", "iterm2"),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, SIXEL_REPLY, "iterm2"),
    ({"TERM": "xterm"}, SIXEL_REPLY, "sixel"),
    ({"TERM": "foot", "COLORTERM": "truecolor"}, SIXEL_REPLY, "sixel"),
    ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, PLAIN_REPLY, "blocks"),
    ({"TERM": "xterm-256color", "COLORTERM": "24bit"}, "", "blocks"),
    ({"TERM": "xterm-256color"}, "", "off"),
    ({"TERM": "xterm-256color", "TMUX": "/tmp/tmux-0/default,1,0", "KITTY_WINDOW_ID": "1"}, SIXEL_REPLY, "blocks"),
    ({"TERM": "tmux-256color"}, "", "blocks"),
    ({"TERM": "screen.xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "", "blocks"),
    ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, "", "off"),
    ({}, "", "off"),
]


def must_not_ask() -> str:
    raise AssertionError("the terminal was asked")


@pytest.mark.parametrize("environ, reply, expected", ENVIRONMENTS)
def test_auto(environ: dict[str, str], reply: str, expected: str) -> None:
    assert choose("auto", environ, terminal=True, ask_da1=lambda: reply) == expected
    assert choose("auto", environ, terminal=False, ask_da1=must_not_ask) == "off"


def test_a_named_mode_is_used_in_a_terminal_only() -> None:
    for mode in ("kitty", "iterm2", "sixel", "blocks"):
        assert choose(mode, {"TERM": "tmux-256color", "TMUX": "x"}, terminal=True, ask_da1=must_not_ask) == mode
        assert choose(mode, {"TERM": "xterm-kitty"}, terminal=False, ask_da1=must_not_ask) == "off"
        assert choose(mode, {"TERM": "dumb"}, terminal=True, ask_da1=must_not_ask) == "off"
    assert choose("off", {"TERM": "xterm-kitty"}, terminal=True, ask_da1=must_not_ask) == "off"


@pytest.mark.parametrize(
    "reply, expected",
    [
        (SIXEL_REPLY, True),
        ("\x1b[?4c", True),
        (PLAIN_REPLY, False),
        ("\x1b[?64;14;24c", False),
        ("", False),
        ("4c", False),
    ],
)
def test_device_attributes(reply: str, expected: bool) -> None:
    assert lists_sixel(reply) is expected


@pytest.mark.parametrize("columns, expected", [(80, 60), (62, 60), (61, 59), (20, 18), (2, 1), (1, 1)])
def test_width(columns: int, expected: int) -> None:
    assert width_for(columns) == expected


def png_base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def noise(side: int) -> Image.Image:
    return Image.frombytes("RGB", (side, side), os.urandom(3 * side * side))


def test_kitty_in_one_chunk() -> None:
    image = Image.new("RGB", (2, 2), RED)
    assert kitty(image, 30) == f"\x1b_Ga=T,f=100,q=2,c=30,m=0;{png_base64(image)}\x1b\\\n"


def test_kitty_in_chunks() -> None:
    image = noise(64)
    parts = kitty(image, 30).removesuffix("\n").split("\x1b\\")[:-1]
    heads = [part.partition(";")[0] for part in parts]
    data = [part.partition(";")[2] for part in parts]
    assert "".join(data) == png_base64(image)
    assert [len(piece) for piece in data[:-1]] == [4096] * (len(data) - 1)
    assert heads == ["\x1b_Ga=T,f=100,q=2,c=30,m=1", *["\x1b_Gm=1"] * (len(data) - 2), "\x1b_Gm=0"]


def test_iterm2_whole() -> None:
    image = Image.new("RGB", (2, 2), RED)
    data = png_base64(image)
    size = len(base64.b64decode(data))
    assert iterm2(image, 30) == f"\x1b]1337;File=inline=1;size={size};width=30;preserveAspectRatio=1:{data}\a\n"


def test_iterm2_in_parts() -> None:
    image = noise(560)
    data = png_base64(image)
    head, *parts, end, newline = iterm2(image, 30).split("\a")
    size = len(base64.b64decode(data))
    assert size > 900_000
    assert head == f"\x1b]1337;MultipartFile=inline=1;size={size};width=30;preserveAspectRatio=1"
    assert "".join(part.removeprefix("\x1b]1337;FilePart=") for part in parts) == data
    assert max(len(part) for part in parts) == 32_768 + len("\x1b]1337;FilePart=")
    assert (end, newline) == ("\x1b]1337;FileEnd", "\n")


def test_half_blocks() -> None:
    image = Image.new("RGB", (2, 2), RED)
    image.paste(BLUE, (0, 1, 2, 2))
    cell = "\x1b[38;2;255;0;0;48;2;0;0;255m▀"
    assert render(image, "blocks", 2) == f"{cell}{cell}\x1b[0m\n"


@pytest.mark.parametrize("size, rows", [((64, 64), 15), ((128, 64), 8), ((64, 128), 30), ((2048, 64), 1)])
def test_half_blocks_keep_the_aspect_ratio(size: tuple[int, int], rows: int) -> None:
    lines = render(Image.new("RGB", size), "blocks", 30).splitlines()
    assert len(lines) == rows
    assert all(line.count("▀") == 30 for line in lines)


def test_sixel() -> None:
    image = Image.new("RGB", (1, 1), RED)
    assert render(image, "sixel", 1) == '\x1bP0;1;0q"1;1;10;10#0;2;100;0;0#0!10~-#0!10N\x1b\\\n'


def test_sixel_draws_each_colour_of_a_band() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.paste(BLUE, (1, 0, 2, 1))
    text = render(image.resize((2, 1)), "sixel", 2)
    assert text.startswith('\x1bP0;1;0q"1;1;20;10')
    assert text.endswith("\x1b\\\n")
    assert "2;100;0;0" in text
    assert "2;0;0;100" in text
    assert text.count("-") == 1  # two bands: six rows and four


def decode_sixel(text: str) -> Image.Image:
    """Decodes the output of `sixel`: palette, colours, runs and bands of six rows."""
    width, height = map(int, re.search(r'"1;1;(\d+);(\d+)', text).groups())  # type: ignore[union-attr]
    colours = {
        int(i): tuple(round(int(c) * 2.55) for c in rgb) for i, *rgb in re.findall(r"#(\d+);2;(\d+);(\d+);(\d+)", text)
    }
    image = Image.new("RGB", (width, height))
    body = re.sub(r"#\d+;2;\d+;\d+;\d+", "", text.partition(f";{height}")[2]).removesuffix("\x1b\\\n")
    for top, band in enumerate(body.split("-")):
        for colour, runs in re.findall(r"#(\d+)([^#$]*)", band):
            column = 0
            for count, character in re.findall(r"(?:!(\d+))?([?-~])", runs):
                for x in range(column, column + int(count or 1)):
                    for row in range(6):
                        if (ord(character) - 63) >> row & 1:
                            image.putpixel((x, 6 * top + row), colours[int(colour)])
                column += int(count or 1)
    return image


def test_sixel_shows_the_image() -> None:
    image = Image.radial_gradient("L").convert("RGB").resize((8, 8))
    shown = decode_sixel(render(image, "sixel", 4))
    expected = image.resize((40, 40)).quantize(256).convert("RGB")
    assert (
        max(abs(a - b) for a, b in zip(shown.tobytes(), expected.tobytes(), strict=True)) <= 3
    )  # of 255; sixel has 100
