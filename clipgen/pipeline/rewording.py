"""Prompts in the words that a model knows: the prompt that is encoded, and the notes on replaced and unknown words.

A model that declares a vocabulary (`vocabulary` in its clipgen.json) gets every text that describes the image in known
words: the prompt, the negative prompt, the texts of `guide`, and what CLIP scores and checks. The record inside the
image keeps the texts of the user.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from clipgen.settings.checks import split_target
from clipgen.settings.settings import Note, Settings
from clipgen.text import parse_prompt
from clipgen.world.vocabulary import Edit, Vocabulary

SYNTAX = re.compile(r"[()\[\]{}_\\]")  # characters that a backslash makes text
BREAK_WORD = re.compile(r"\bBREAK\b")
PROMPTS = ("prompt", "negative_prompt")
Runs = Sequence[tuple[str, float]]


def reword(settings: Settings, vocabulary: Vocabulary | None) -> Settings:
    """Returns settings whose texts hold the words of a vocabulary; without changes, the settings themselves."""
    if vocabulary is None:
        return settings
    changes: dict[str, str | tuple[str, ...]] = {name: _reword_prompt(settings, name, vocabulary) for name in PROMPTS}
    changes["guide"] = tuple(_reword_target(target, vocabulary) for target in settings.guide)
    changed = {name: value for name, value in changes.items() if value != getattr(settings, name)}
    return settings.replace(**changed) if changed else settings


def word_notes(settings: Settings, vocabulary: Vocabulary | None, model: str) -> list[Note]:
    """Returns the notes on replaced and unknown words of the prompt, the negative prompt and the texts that guide."""
    if vocabulary is None:
        return []
    texts = [(name, _without_breaks(_runs(settings, name), settings)) for name in PROMPTS]
    if settings.guided:
        texts.append(("guide", ", ".join(split_target(target)[0] for target in settings.guide)))
    return [note for name, text in texts for note in vocabulary.notes(text, model, name)]


def _runs(settings: Settings, name: str) -> Runs:
    """Returns the runs of text and their weights of the prompt or the negative prompt."""
    return parse_prompt(getattr(settings, name), settings.prompt_syntax, name)


def _without_breaks(runs: Runs, settings: Settings) -> str:
    """Returns the text of runs; where the word BREAK ends a window it is a comma and spaces, so that positions stay."""
    text = "".join(text for text, _ in runs)
    return BREAK_WORD.sub(",    ", text) if settings.long_prompt == "chunk" else text


def _reword_target(target: str, vocabulary: Vocabulary) -> str:
    """Returns a text of `guide` with its weight, in known words."""
    text, weight = split_target(target)
    reading = vocabulary.read(text)
    return f"{reading.text}:{weight}" if reading.edits else target


def _reword_prompt(settings: Settings, name: str, vocabulary: Vocabulary) -> str:
    """Returns a prompt in known words; a word that replaces another gets the weight of its first character."""
    runs = _runs(settings, name)
    edits = vocabulary.read(_without_breaks(runs, settings)).edits
    if not edits:
        return str(getattr(settings, name))
    return "".join(_with_weight(text, weight, settings.prompt_syntax) for text, weight in _edited(runs, edits))


def _edited(runs: Runs, edits: Sequence[Edit]) -> list[tuple[str, float]]:
    """Returns runs of text with edits, whose positions count from the start of the first run, applied."""
    edited, position = [], 0
    for text, weight in runs:
        end = position + len(text)
        for edit in reversed(edits):
            start, stop = max(edit.start, position) - position, min(edit.end, end) - position
            if start < stop:
                new = edit.text if edit.start >= position else ""
                text = text[:start] + new + text[stop:]
        edited.append((text, weight))
        position = end
    return edited


def _with_weight(text: str, weight: float, syntax: str) -> str:
    """Returns a run of text in the syntax of a prompt, so that `parse_prompt` gives the run again."""
    if syntax == "plain":
        return text
    escaped = SYNTAX.sub(r"\\\g<0>", text)
    return escaped if weight == 1 or not text else f"({escaped}:{weight})"
