"""Reads the text block of A1111, Forge, SD.Next, stable-diffusion.cpp and other apps that write the same format."""

from __future__ import annotations

import re

from clipgen.errors import ImageFileError
from clipgen.image_file.restored import ParsedMetadata
from clipgen.image_file.strict_json import parse_json
from clipgen.settings.settings import Note

MAX_LINE = 65_536
MIN_KEYS = 3
NEGATIVE = "Negative prompt:"
# A1111's pattern with bounded repetitions; without bounds it takes quadratic time.
_VALUES = re.compile(r'\s{0,8}(\w[\w \-/]{1,63}):\s{0,8}("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d{1,6})\s?x\s?(\d{1,6})")
_FIELDS = {"Steps": "steps", "CFG scale": "guidance_scale", "Seed": "seed"}
_SCHEDULES = ("Schedule type", "Scheduler")
_CLIP_SKIP = "Clip skip"
_SMALL_NUMBER = re.compile(r"[0-9]{1,4}")
_LONGEST_SHORT_PROMPT = 74  # characters; a prompt of so few has at most 75 tokens
_KNOWN_KEYS = {*_FIELDS, _CLIP_SKIP, *_SCHEDULES, "Sampler", "Size", "Model"}
_SDCPP = ", SDCPP: {"
CLIP_SKIP_OF_XL = Note(
    "clip-skip", "clip_skip", "A1111 ignores Clip skip for SDXL models; with such a model set clip_skip to 0."
)
_WRITERS = ("stable-diffusion.cpp", "clipgen", "Fooocus", "ComfyUI")


def read(text: str) -> ParsedMetadata | None:
    """Reads a block; returns None if the last line has fewer than three `key: value` pairs.

    The negative prompt begins at the line `Negative prompt:`. Never raises an error.
    """
    *lines, last = text.strip().split("\n")
    last, marker, tail = last.partition(_SDCPP)
    if len(last) > MAX_LINE:
        return None
    values = {key: _unquoted(value) for key, value in _VALUES.findall(last)}
    if len(values) < MIN_KEYS:
        return None
    source = _source(values)
    prompt, negative = _prompts(lines)
    unknown = {key: value for key, value in values.items() if key not in _KNOWN_KEYS}
    if "Model" in values:
        unknown["model"] = values["Model"]
    if marker:
        unknown["SDCPP"] = "{" + tail
    fields = {"prompt": prompt, "negative_prompt": negative, **_numbers(values)}
    notes = []
    if source != "clipgen" and any(_is_long(text) for text in (prompt, negative)):
        fields["long_prompt"] = "chunk"
    if (skip := _SMALL_NUMBER.fullmatch(values.get(_CLIP_SKIP, ""))) and int(skip[0]) > 1:
        fields["clip_skip"] = str(int(skip[0]) - 1)  # A1111 counts from 1
        notes.append(CLIP_SKIP_OF_XL)
    return ParsedMetadata(
        source=source,
        fields=fields,
        sampler=values.get("Sampler"),
        schedule=next((values[key] for key in _SCHEDULES if key in values), None),
        unknown=unknown,
        notes=notes,
    )


def _is_long(prompt: str) -> bool:
    """Tells whether a prompt may have more than one window of 75 tokens, as these apps read it."""
    return "BREAK" in prompt or len(prompt) > _LONGEST_SHORT_PROMPT


def _prompts(lines: list[str]) -> tuple[str, str]:
    at = next((i for i, line in enumerate(lines) if line.strip().startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[at:]).strip().removeprefix(NEGATIVE)
    return "\n".join(lines[:at]).strip(), negative.strip()


def _numbers(values: dict[str, str]) -> dict[str, str]:
    fields = {field: values[key] for key, field in _FIELDS.items() if key in values}
    if size := _SIZE.fullmatch(values.get("Size", "")):
        fields |= {"width": size[1], "height": size[2]}
    return fields


def _unquoted(value: str) -> str:
    """Removes the JSON quotes around a value with a comma, colon or newline."""
    if len(value) < 2 or not value.startswith('"') or not value.endswith('"'):
        return value.strip()
    try:
        return str(parse_json(value))
    except ImageFileError:
        return value


def _source(values: dict[str, str]) -> str:
    """Returns the app that wrote the block, from the keys Version and App."""
    version = values.get("Version", "")
    for name in _WRITERS:
        if version.startswith(name):
            return name
    if values.get("App") == "SD.Next":
        return "SD.Next"
    return "Forge" if re.match(r"f\d|neo", version) else "A1111"
