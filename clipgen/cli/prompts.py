"""Turns the words of a command line into prompts, seeds and sizes."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from clipgen.errors import SettingsError
from clipgen.settings.settings import Note, coerce

STDIN = "-"
STDIN_BYTES = 1_000_000
MAX_SEEDS = 1_000
RANGE = re.compile(r"(\d{1,19})-(\d{1,19})")


def read_prompts(words: Sequence[str], flagged: Sequence[str]) -> tuple[list[str], list[Note]]:
    """Returns the prompts of the positional words and of `--prompt`, and notes about how they were read.

    Several words without any space are one unquoted prompt; otherwise each word is a prompt, and `-` reads stdin.
    """
    if len(words) > 1 and not any(re.search(r"\s", word) for word in words):
        prompt = " ".join(words)
        return [prompt, *flagged], [Note("unquoted-prompt", "prompt", f'Read as one prompt: "{prompt}"')]
    if words.count(STDIN) > 1:
        raise SettingsError("stdin ('-') can be used only once", field="prompt")
    return [*(_stdin() if word == STDIN else word for word in words), *flagged], []


def _stdin() -> str:
    """Returns stdin as one prompt; Settings refuses bytes that are not UTF-8."""
    return sys.stdin.buffer.read(STDIN_BYTES).decode("utf-8", "surrogateescape").strip()


def parse_seeds(text: str) -> list[int | None]:
    """Returns the seeds of `7`, `random` (None) or a list such as `1,2,5-8`; raises SettingsError."""
    seeds: list[int | None] = []
    for part in text.split(","):
        seeds += _seed_range(text, *match.groups()) if (match := RANGE.fullmatch(part.strip())) else [_seed(part)]
    if len(seeds) > MAX_SEEDS:
        raise _too_many_seeds(text)
    return seeds


def _seed(part: str) -> int | None:
    seed: int | None = coerce("seed", part.strip() or "''")
    return seed


def _seed_range(text: str, first: str, last: str) -> list[int | None]:
    low, high = _seed(first), _seed(last)
    assert low is not None
    assert high is not None
    if high < low:
        raise SettingsError(f"a seed range must ascend, got '{first}-{last}'", field="seed")
    if high - low >= MAX_SEEDS:
        raise _too_many_seeds(text)
    return list(range(low, high + 1))


def _too_many_seeds(text: str) -> SettingsError:
    return SettingsError(f"seed must be at most {MAX_SEEDS:,} seeds, got '{text}'", field="seed")


def parse_size(text: str) -> dict[str, int]:
    """Returns width and height of `512x768`; raises SettingsError."""
    match = re.fullmatch(r"(\d{1,5})\s*[xX×]\s*(\d{1,5})", text)
    if not match:
        raise SettingsError(f"size must have the form 512x768, got '{text}'", field="size")
    return {name: coerce(name, value) for name, value in zip(("width", "height"), match.groups(), strict=True)}
