"""Other apps' prompts in clipgen's syntax: what means something here and nothing there is escaped or taken out."""

from __future__ import annotations

import re

from clipgen.settings.checks import FORBIDDEN, LOCAL
from clipgen.settings.settings import Note

_LONGEST = 20_000  # characters that are looked at
_NETWORK = re.compile(r"<[a-zA-Z]{2,12}:[^<>\n]{1,200}>")
_SPECIAL = re.compile(r"(\\[()\[\]\\])|\\?([{}]|_{2,})")
_GROUP = re.compile(r"\(([^()]{1,500})\)(\d{1,2}(?:\.\d{1,4})?|\+{1,5}|-{1,5})(?![\w.])")
_WORD = re.compile(r"(?<![\w)+-])(\w{1,60})(\+{1,5}|-{1,5})(?![\w+-])")


def to_clipgen(text: str, field: str) -> tuple[str, list[Note]]:
    """Returns a foreign prompt with `{ } __` escaped and `<lora:...>` tags taken out, cut at the limit, and notes."""
    text = FORBIDDEN.sub(" ", text[:_LONGEST].replace("\r\n", "\n"))
    notes = []
    if tags := _NETWORK.findall(text):
        text = _NETWORK.sub("", text)
        some = ", ".join(tags[:3]) + (" ..." if len(tags) > 3 else "")
        notes.append(Note("network-left-out", field, f"Not applied: {some}"))
    text = _SPECIAL.sub(_escape, text).strip()
    if (lost := len(text) - LOCAL.characters) > 0:
        text = text[: LOCAL.characters].removesuffix("\\").rstrip()
        message = f"{field} is longer than {LOCAL.characters:,} characters: the last {lost:,} are left out"
        notes.append(Note("prompt-shortened", field, message))
    return text, notes


def _escape(match: re.Match[str]) -> str:
    return match[1] or "".join(f"\\{character}" for character in match[2])


def from_compel(text: str) -> str:
    """Rewrites InvokeAI's weights as clipgen's: `(red fox)1.3` -> `(red fox:1.3)`, `fox++` -> `(fox:1.21)`."""
    text = _WORD.sub(lambda match: f"({match[1]}){match[2]}", text[:_LONGEST])
    return _GROUP.sub(lambda match: f"({match[1]}:{_weight(match[2]):.4g})", text)


def _weight(mark: str) -> float:
    """Returns compel's weight: each + multiplies by 1.1, each - by 0.9."""
    if mark[0] in "+-":
        return float((1.1 if mark[0] == "+" else 0.9) ** len(mark))
    return float(mark)
