"""Converts prompts of other apps to clipgen's syntax: escapes what would have a meaning here.

LoRA tags stay if the file is in one of the user's folders; all others are removed.
"""

from __future__ import annotations

import re

from clipgen.home import adapter_files
from clipgen.settings.checks import FORBIDDEN, LOCAL
from clipgen.settings.settings import Note

_MAX_CHARACTERS = 20_000  # the rest of a longer prompt is ignored
_NETWORK = re.compile(r"<[a-zA-Z]{2,12}:[^<>\n]{1,200}>")
_LORA = re.compile(r"<lora:([^<>:\n]{1,200})(?::(-?\d(?:\.\d{1,4})?))?>", re.IGNORECASE)
_SPECIAL = re.compile(r"(<[a-zA-Z]{2,12}:[^<>\n]{1,200}>|\\[()\[\]\\])|\\?([{}]|_{2,})")
_GROUP = re.compile(r"\(([^()]{1,500})\)(\d{1,2}(?:\.\d{1,4})?|\+{1,5}|-{1,5})(?![\w.])")
_WORD = re.compile(r"(?<![\w)+-])(\w{1,60})(\+{1,5}|-{1,5})(?![\w+-])")


def to_clipgen(text: str, field: str) -> tuple[str, list[Note]]:
    """Returns a prompt with `{ } __` escaped and tags of unknown LoRAs removed, cut at the length limit, and notes."""
    text = FORBIDDEN.sub(" ", text[:_MAX_CHARACTERS].replace("\r\n", "\n"))
    notes = []
    usable: frozenset[str] = frozenset()
    if all_tags := _NETWORK.findall(text):
        if field == "prompt":
            usable = _usable_tags(all_tags)
        text = _NETWORK.sub(lambda match: match[0] if match[0] in usable else "", text)
    if tags := [tag for tag in all_tags if tag not in usable]:
        examples = ", ".join(tags[:3]) + (" ..." if len(tags) > 3 else "")
        notes.append(Note("network-left-out", field, f"Not applied: {examples}"))
    text = _SPECIAL.sub(_escape, text).strip()
    if (excess := len(text) - LOCAL.characters) > 0:
        text = text[: LOCAL.characters].removesuffix("\\").rstrip()
        message = f"{field} is longer than {LOCAL.characters:,} characters: the last {excess:,} are left out"
        notes.append(Note("prompt-shortened", field, message))
    return text, notes


def _usable_tags(tags: list[str]) -> frozenset[str]:
    """Returns the tags that name a LoRA in one of the user's folders, with one weight within the limits."""
    names = adapter_files("loras")
    matches = (_LORA.fullmatch(tag) for tag in tags)
    found = (match for match in matches if match is not None and match[1] in names)
    return frozenset(match[0] for match in found if abs(float(match[2] or 1)) <= LOCAL.lora[1])


def _escape(match: re.Match[str]) -> str:
    return match[1] or "".join(f"\\{character}" for character in match[2])


def from_compel(text: str) -> str:
    """Converts compel weights (InvokeAI) to clipgen's: `(red fox)1.3` -> `(red fox:1.3)`, `fox++` -> `(fox:1.21)`."""
    text = _WORD.sub(lambda match: f"({match[1]}){match[2]}", text[:_MAX_CHARACTERS])
    return _GROUP.sub(lambda match: f"({match[1]}:{_weight(match[2]):.4g})", text)


def _weight(mark: str) -> float:
    """Returns a compel weight: each + multiplies by 1.1, each - by 0.9."""
    if mark[0] in "+-":
        return float((1.1 if mark[0] == "+" else 0.9) ** len(mark))
    return float(mark)
