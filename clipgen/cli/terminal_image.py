"""Shows an image inside the terminal with the protocol of kitty or iTerm2, with sixels or with half blocks."""

from __future__ import annotations

import base64
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

MODES = ("auto", "kitty", "iterm2", "sixel", "blocks", "off")
KITTY_CHUNK = 4096
ITERM_WHOLE = 900_000
ITERM_PART = 32_768
DA1_SECONDS = 0.1
SIXEL_CELL = 10  # pixels per column, as in the VT340
ESC = "\x1b"


def choose(mode: str, environ: Mapping[str, str], *, terminal: bool, ask_da1: Callable[[], str]) -> str:
    """Returns the protocol to use, one of MODES except `auto`.

    Args:
        mode: One of MODES.
        environ: The environment variables.
        terminal: Whether stdout and stderr are both terminals; if not, the result is `off`.
        ask_da1: Returns the terminal's reply to a primary device attributes request. It is called only if the
            environment decides nothing.
    """
    if not terminal or mode == "off" or environ.get("TERM") == "dumb":
        return "off"
    return _detect(environ, ask_da1) if mode == "auto" else mode


def _detect(environ: Mapping[str, str], ask_da1: Callable[[], str]) -> str:
    """Returns the best protocol according to the environment, then to the terminal's own reply."""
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if "TMUX" in environ or term.startswith(("tmux", "screen")):
        return "blocks"
    if "KITTY_WINDOW_ID" in environ or any(name in f"{term} {program}".lower() for name in ("kitty", "ghostty")):
        return "kitty"
    if "ITERM_SESSION_ID" in environ or program in ("iTerm.app", "WezTerm"):
        return "iterm2"
    if lists_sixel(ask_da1()):
        return "sixel"
    return "blocks" if environ.get("COLORTERM") in ("truecolor", "24bit") else "off"


def lists_sixel(reply: str) -> bool:
    """Returns whether a DA1 reply such as `ESC [ ? 62 ; 4 ; 22 c` lists attribute 4, sixel graphics."""
    head, _, tail = reply.partition(f"{ESC}[?")
    return not head and tail.endswith("c") and "4" in tail[:-1].split(";")


def ask_terminal() -> str:
    """Requests the device attributes of the terminal on stdin; returns its reply, "" after 100 ms without one."""
    if os.name != "posix" or not sys.stdin.isatty():
        return ""
    import select
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    reply = ""
    try:
        tty.setcbreak(descriptor)
        os.write(sys.stderr.fileno(), f"{ESC}[c".encode())
        while not reply.endswith("c") and select.select([descriptor], [], [], DA1_SECONDS)[0]:
            reply += os.read(descriptor, 64).decode("latin-1")
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
    return reply


def width_for(columns: int) -> int:
    """Returns the image's width in a terminal of `columns`: two columns less, at most 60."""
    return max(1, min(60, columns - 2))


def render(image: Image, mode: str, columns: int) -> str:
    """Returns the text that shows an RGB image `columns` wide and moves the cursor to the next line."""
    return {"kitty": kitty, "iterm2": iterm2, "sixel": sixel, "blocks": blocks}[mode](image, columns)


def kitty(image: Image, columns: int) -> str:
    """Returns kitty's graphics command for the image as PNG, in chunks of 4,096 characters."""
    chunks = list(_pieces(_png_base64(image), KITTY_CHUNK))
    heads = [f"a=T,f=100,q=2,c={columns},"] + [""] * (len(chunks) - 1)
    more = [1] * (len(chunks) - 1) + [0]
    return "".join(f"{ESC}_G{h}m={m};{c}{ESC}\\" for h, m, c in zip(heads, more, chunks, strict=True)) + "\n"


def iterm2(image: Image, columns: int) -> str:
    """Returns iTerm2's inline image command; images above 900,000 bytes are sent in parts."""
    data = _png_base64(image)
    size = len(data) * 3 // 4 - data[-2:].count("=")
    options = f"inline=1;size={size};width={columns};preserveAspectRatio=1"
    if size <= ITERM_WHOLE:
        return f"{ESC}]1337;File={options}:{data}\a\n"
    parts = "".join(f"{ESC}]1337;FilePart={part}\a" for part in _pieces(data, ITERM_PART))
    return f"{ESC}]1337;MultipartFile={options}\a{parts}{ESC}]1337;FileEnd\a\n"


def blocks(image: Image, columns: int) -> str:
    """Returns lines of upper half blocks: the foreground colour is the upper pixel, the background the lower one."""
    rows = max(1, round(columns * image.height / image.width / 2))
    data = image.convert("RGB").resize((columns, rows * 2)).tobytes()  # row-major, 3 bytes per pixel
    stride = columns * 3
    lines = [data[start : start + stride] for start in range(0, len(data), stride)]
    return "".join(_block_row(above, below) for above, below in zip(lines[::2], lines[1::2], strict=True))


def _block_row(above: bytes, below: bytes) -> str:
    """Returns one line of half blocks for two rows of RGB bytes."""
    cells = (
        f"{ESC}[38;2;{';'.join(map(str, above[x : x + 3]))};48;2;{';'.join(map(str, below[x : x + 3]))}m▀"
        for x in range(0, len(above), 3)
    )
    return "".join(cells) + f"{ESC}[0m\n"


def sixel(image: Image, columns: int) -> str:
    """Returns a sixel image with at most 256 colours, 10 pixels per column (DEC STD 070, chapter 9)."""
    import numpy as np

    width = columns * SIXEL_CELL
    height = max(1, round(width * image.height / image.width))
    paletted = image.convert("RGB").resize((width, height)).quantize(256)
    levels = np.array(paletted.getpalette()).reshape(-1, 3) * 100 / 255  # sixel counts colours from 0 to 100
    palette = "".join(f"#{i};2;{r:.0f};{g:.0f};{b:.0f}" for i, (r, g, b) in enumerate(levels))
    pixels = np.asarray(paletted)  # [H, W], palette indices
    bands = (_sixel_band(pixels[top : top + 6]) for top in range(0, height, 6))
    return f'{ESC}P0;1;0q"1;1;{width};{height}{palette}{"-".join(bands)}{ESC}\\\n'


def _sixel_band(band: np.ndarray) -> str:
    """Returns up to six rows of palette indices [6, W]: per colour one character per column, bit k for row k."""
    import numpy as np

    bits = 1 << np.arange(len(band))
    rows = {int(colour): bytes((63 + bits @ (band == colour)).astype(np.uint8)).decode() for colour in np.unique(band)}
    return "$".join(f"#{colour}" + re.sub(r"(.)\1{3,}", _run_length, text) for colour, text in rows.items())


def _run_length(match: re.Match[str]) -> str:
    return f"!{len(match[0])}{match[1]}"


def _png_base64(image: Image) -> str:
    """Returns the image as PNG without metadata, in base64."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", optimize=False)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _pieces(text: str, size: int) -> Iterator[str]:
    """Yields pieces of `size` characters; the last one may be shorter."""
    return (text[start : start + size] for start in range(0, len(text), size))
