"""Turns the words of a command line into prompts and seeds, and says so when it had to guess."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence

from clipgen.errors import SettingsError
from clipgen.settings.settings import Note, coerce

STDIN = "-"
STDIN_BYTES = 1_000_000
MOST_SEEDS = 1_000
RANGE = re.compile(r"(\d{1,19})-(\d{1,19})")


def read_prompts(words: Sequence[str], flagged: Sequence[str]) -> tuple[list[str], list[Note]]:
    """Returns the prompts of positional words and of `--prompt`, and the notes about how they were read.

    Words of which none holds a space are one unquoted prompt, else each is its own; the word `-` is stdin then, and
    when it stands alone.
    """
    if len(words) > 1 and not any(re.search(r"\s", word) for word in words):
        prompt = " ".join(words)
        return [prompt, *flagged], [Note("unquoted-prompt", "prompt", f'Read as one prompt: "{prompt}"')]
    if words.count(STDIN) > 1:
        raise SettingsError("stdin ('-') can be one prompt, got it twice", field="prompt")
    return [*(_stdin() if word == STDIN else word for word in words), *flagged], []


def _stdin() -> str:
    """Reads all of stdin as one prompt; bytes that are not UTF-8 stay for Settings to refuse."""
    return sys.stdin.buffer.read(STDIN_BYTES).decode("utf-8", "surrogateescape").strip()


def near_command(words: Sequence[str], commands: Iterable[str]) -> list[Note]:
    """Returns a note when a lone word is one slip away from a command's name."""
    if len(words) != 1:
        return []
    near = [name for name in commands if _one_edit_apart(words[0], name)]
    return [Note("near-command", "prompt", f'Drawing "{words[0]}". For the command: clipgen {name}') for name in near]


def _one_edit_apart(a: str, b: str) -> bool:
    """Tells whether one insertion, deletion or substitution turns `a` into `b` (Levenshtein distance 1)."""
    short, long = sorted((a, b), key=len)
    same = next((i for i, (x, y) in enumerate(zip(short, long, strict=False)) if x != y), len(short))
    if len(short) == len(long):
        return a != b and short[same + 1 :] == long[same + 1 :]
    return len(long) - len(short) == 1 and short[same:] == long[same + 1 :]


def parse_seeds(text: str) -> list[int | None]:
    """Returns the seeds of `7`, `random` (None) or a list such as `1,2,5-8`; raises SettingsError."""
    seeds: list[int | None] = []
    for part in text.split(","):
        seeds += _seed_range(text, *match.groups()) if (match := RANGE.fullmatch(part.strip())) else [_seed(part)]
    if len(seeds) > MOST_SEEDS:
        raise _too_many(text)
    return seeds


def _seed(part: str) -> int | None:
    seed: int | None = coerce("seed", part.strip() or "''")
    return seed


def _seed_range(text: str, first: str, last: str) -> list[int | None]:
    low, high = _seed(first), _seed(last)
    assert low is not None
    assert high is not None
    if high < low:
        raise SettingsError(f"seed ranges go upwards, got '{first}-{last}'", field="seed")
    if high - low >= MOST_SEEDS:
        raise _too_many(text)
    return list(range(low, high + 1))


def _too_many(text: str) -> SettingsError:
    return SettingsError(f"seed must be at most {MOST_SEEDS:,} seeds, got '{text}'", field="seed")


def parse_size(text: str) -> dict[str, int]:
    """Returns width and height of `512x768`; raises SettingsError."""
    match = re.fullmatch(r"(\d{1,5})\s*[xX×]\s*(\d{1,5})", text)
    if not match:
        raise SettingsError(f"size must be like 512x768, got '{text}'", field="size")
    return {name: coerce(name, value) for name, value in zip(("width", "height"), match.groups(), strict=True)}
