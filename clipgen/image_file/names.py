"""What an output file is called: the slug of a prompt, templates, and where `--output` points."""

from __future__ import annotations

import os
import re
import unicodedata
from datetime import datetime
from pathlib import Path
from string import Template

from clipgen.errors import OutputError, SettingsError
from clipgen.image_file.paths import printable_path, strip_folders
from clipgen.image_file.write import SUFFIXES, Format
from clipgen.settings.checks import printable
from clipgen.settings.settings import Settings

DEFAULT_FOLDER, DEFAULT_NAME = "outputs/$date", "$slug-$seed"
NAMES = ("date", "time", "n", "seed", "slug", "model", "preset", "steps", "scheduler", "guidance_scale", "percent")
FORMATS: dict[str, Format] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
SLUG_BYTES, NAME_BYTES = 60, 120
NUMBER_BYTES = 8  # room for -1234567 behind the stem
_OTHER_PICTURES = {".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jxl", ".jp2", ".svg", ".pdf"}
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def slug(text: str) -> str:
    """Returns a prompt as part of a file name: lower-case ASCII letters and digits, `-` between, at most 60 bytes."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")
    if len(words) > SLUG_BYTES:
        words = words[: SLUG_BYTES + 1].rpartition("-")[0] or words[:SLUG_BYTES]
    return "image" if not words or _DEVICES.fullmatch(words) else words


def output_path(
    template: str | None,
    *,
    settings: Settings,
    seed: int,
    moment: datetime,
    format: Format = "png",
    percent: float | None = None,
) -> tuple[Path, str, str]:
    """Works out folder, stem and suffix of one picture; touches nothing.

    `template` is a file (`fox.jpg`), a folder (`pics/`, or a name without a picture's suffix), or a template of
    string.Template over NAMES; None = `outputs/$date/$slug-$seed`. A file's suffix wins over `format`. Raises
    SettingsError for other names, and OutputError where a link lies below the folder that was named in full.
    """
    folder, name = _split(template)
    stem, suffix = _stem_and_suffix(name)
    suffix = suffix or SUFFIXES[format]
    values = _values(settings, seed, moment, percent)
    place = Path(os.path.expanduser(_fill(folder, values)))
    _refuse_links(place, below=Path(os.path.expanduser(_literal(folder))))
    if (before := _before_number(stem)) is not None:
        values["n"] = _next_number(place, _fill(before, values))
    return place, _short(_fill(stem, values), suffix), suffix


def format_of(template: str | None) -> Format | None:
    """Returns the format that a file name or template asks for by its suffix, None where it leaves that open."""
    return FORMATS.get(_stem_and_suffix(_split(template)[1])[1].lower())


def _split(template: str | None) -> tuple[str, str]:
    """Splits `--output` into folder and name, both still templates."""
    if template is None:
        return DEFAULT_FOLDER, DEFAULT_NAME
    if not template or _UNPRINTABLE.search(template):
        raise SettingsError(f"output must be a path in plain characters, got '{printable(template)}'", field="output")
    folder, name = os.path.split(template)
    is_name = "$" in name or Path(name).suffix.lower() in FORMATS.keys() | _OTHER_PICTURES
    if not is_name or os.path.isdir(template):
        return template, DEFAULT_NAME
    return folder or ".", name


def _stem_and_suffix(name: str) -> tuple[str, str]:
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in _OTHER_PICTURES:
        message = f"Unknown picture format '{printable(suffix)}'. Formats: {', '.join(SUFFIXES)}."
        raise SettingsError(message, field="output", allowed=tuple(SUFFIXES))
    return (stem, suffix) if suffix.lower() in FORMATS else (name, "")


def _values(settings: Settings, seed: int, moment: datetime, percent: float | None) -> dict[str, str]:
    """Returns what the names of a template stand for, `n` aside; no value holds a slash or begins with a dot."""
    values: dict[str, object] = {
        "date": f"{moment:%Y-%m-%d}",
        "time": f"{moment:%H-%M-%S}",
        "seed": seed,
        "slug": slug(settings.title),
        "model": strip_folders(settings.model).removeprefix("./"),
        "preset": settings.preset,
        "steps": settings.steps,
        "scheduler": settings.scheduler,
        "guidance_scale": None if settings.guidance_scale is None else f"{settings.guidance_scale:g}",
        "percent": None if percent is None else f"{percent:.0f}",
    }
    return {name: _plain(str(value)) for name, value in values.items()}


def _plain(value: str) -> str:
    return re.sub(r"[^A-Za-z0-9+_.-]+", "-", value).strip("-.").lower() or "none"


def _fill(text: str, values: dict[str, str]) -> str:
    """Puts the values into a template; raises SettingsError for a name or a `$` that means nothing."""
    template = Template(text)
    unknown = [name for name in template.get_identifiers() if name not in values]
    if unknown == ["n"]:
        raise SettingsError("$n, the next number, works in the file's name only", field="output")
    if unknown or not template.is_valid():
        wrong = f"${unknown[0]}" if unknown else text
        known = " ".join(f"${name}" for name in NAMES)
        raise SettingsError(
            f"Unknown name '{printable(wrong)}' in the output template. Names: {known}.",
            field="output",
            allowed=NAMES,
        )
    return template.substitute(values)


def _literal(folder: str) -> Path:
    """Returns the leading parts of a folder that hold no variable: what the person named in full."""
    parts = Path(folder).parts
    return Path(*parts[: next((i for i, part in enumerate(parts) if "$" in part), len(parts))])


def _refuse_links(place: Path, below: Path) -> None:
    for folder in [place, *place.parents][: len(place.parts) - len(below.parts)]:
        if os.path.islink(folder):
            message = f"'{printable_path(folder)}' is a link; pictures are not written through one."
            raise OutputError(message, field="output")


def _before_number(stem: str) -> str | None:
    """Returns the part of a name template that stands before `$n`, None where there is no `$n`."""
    for match in Template.pattern.finditer(stem):
        if "n" in (match["named"], match["braced"]):
            return stem[: match.start()]
    return None


def _next_number(folder: Path, before: str) -> str:
    """Returns the highest number of the folder's files that begin with `before`, plus one, in four digits."""
    numbered = re.compile(re.escape(before) + r"(\d{4,9})(?!\d)")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return f"{max((int(match[1]) for name in names if (match := numbered.match(name))), default=0) + 1:04d}"


def _short(stem: str, suffix: str) -> str:
    """Cuts a stem so that the whole name, a number included, keeps to 120 bytes, and avoids Windows' device names."""
    stem = f"image-{stem}" if _DEVICES.fullmatch(stem) else stem
    room = NAME_BYTES - NUMBER_BYTES - len(suffix)
    return stem.encode()[:room].decode(errors="ignore").rstrip(". ") or "image"
