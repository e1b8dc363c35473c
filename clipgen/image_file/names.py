"""Names of output files: the slug of a prompt, name templates, and the folder and file of `--output`."""

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
LORA_TAG = re.compile(r"<lora:[^<>]*>", re.IGNORECASE)
NAMES = ("date", "time", "n", "seed", "slug", "model", "preset", "steps", "scheduler", "guidance_scale", "percent")
FORMATS: dict[str, Format] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
SLUG_BYTES, NAME_BYTES = 60, 120
NUMBER_BYTES = 8  # for a suffix such as -1234567
_OTHER_FORMATS = {".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jxl", ".jp2", ".svg", ".pdf"}
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def slug(text: str) -> str:
    """Returns a prompt as part of a file name: lower-case ASCII letters, digits and `-`, at most 60 bytes."""
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
    """Returns folder, stem and suffix of one image, without changing any file.

    `template` is a file (`fox.jpg`), a folder (`pics/`, or a name without an image suffix), or a string.Template with
    the variables NAMES; None means `outputs/$date/$slug-$seed`. A suffix in the template has priority over `format`.
    Raises SettingsError for unknown variables and formats, and OutputError for a symbolic link below the folders that
    are named without variables.
    """
    folder, name = _split(template)
    stem, suffix = _stem_and_suffix(name)
    suffix = suffix or SUFFIXES[format]
    values = _values(settings, seed, moment, percent)
    directory = Path(os.path.expanduser(_fill(folder, values)))
    _reject_links(directory, below=Path(os.path.expanduser(_literal(folder))))
    if (before := _before_number(stem)) is not None:
        values["n"] = _next_number(directory, _fill(before, values))
    return directory, _short(_fill(stem, values), suffix), suffix


def format_of(template: str | None) -> Format | None:
    """Returns the format that the suffix of a file name or template means, None without a suffix."""
    return FORMATS.get(_stem_and_suffix(_split(template)[1])[1].lower())


def _split(template: str | None) -> tuple[str, str]:
    """Splits `--output` into a folder template and a name template."""
    if template is None:
        return DEFAULT_FOLDER, DEFAULT_NAME
    if not template or _UNPRINTABLE.search(template):
        raise SettingsError(f"output must be a path in plain characters, got '{printable(template)}'", field="output")
    folder, name = os.path.split(template)
    is_name = "$" in name or Path(name).suffix.lower() in FORMATS.keys() | _OTHER_FORMATS
    if not is_name or os.path.isdir(template):
        return template, DEFAULT_NAME
    return folder or ".", name


def _stem_and_suffix(name: str) -> tuple[str, str]:
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in _OTHER_FORMATS:
        message = f"Unknown picture format '{printable(suffix)}'. Formats: {', '.join(SUFFIXES)}."
        raise SettingsError(message, field="output", allowed=tuple(SUFFIXES))
    return (stem, suffix) if suffix.lower() in FORMATS else (name, "")


def _values(settings: Settings, seed: int, moment: datetime, percent: float | None) -> dict[str, str]:
    """Returns the values of all template variables except `n`; none contains a slash or begins with a dot."""
    values: dict[str, object] = {
        "date": f"{moment:%Y-%m-%d}",
        "time": f"{moment:%H-%M-%S}",
        "seed": seed,
        "slug": slug(LORA_TAG.sub(" ", settings.title)),
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
    """Substitutes the variables of a template; raises SettingsError for an unknown variable or an invalid `$`."""
    template = Template(text)
    unknown = [name for name in template.get_identifiers() if name not in values]
    if unknown == ["n"]:
        raise SettingsError("$n, the next number, works in the file's name only", field="output")
    if unknown or not template.is_valid():
        wrong = f"${unknown[0]}" if unknown else text
        names = " ".join(f"${name}" for name in NAMES)
        raise SettingsError(
            f"Unknown name '{printable(wrong)}' in the output template. Names: {names}.",
            field="output",
            allowed=NAMES,
        )
    return template.substitute(values)


def _literal(folder: str) -> Path:
    """Returns the leading parts of a folder template that contain no variable."""
    parts = Path(folder).parts
    return Path(*parts[: next((i for i, part in enumerate(parts) if "$" in part), len(parts))])


def _reject_links(directory: Path, below: Path) -> None:
    for folder in [directory, *directory.parents][: len(directory.parts) - len(below.parts)]:
        if os.path.islink(folder):
            message = f"'{printable_path(folder)}' is a symbolic link; images are not written through links."
            raise OutputError(message, field="output")


def _before_number(stem: str) -> str | None:
    """Returns the part of a name template before `$n`, None without `$n`."""
    for match in Template.pattern.finditer(stem):
        if "n" in (match["named"], match["braced"]):
            return stem[: match.start()]
    return None


def _next_number(folder: Path, before: str) -> str:
    """Returns, in four digits, the highest number of files in the folder that begin with `before`, plus one."""
    numbered = re.compile(re.escape(before) + r"(\d{4,9})(?!\d)")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return f"{max((int(match[1]) for name in names if (match := numbered.match(name))), default=0) + 1:04d}"


def _short(stem: str, suffix: str) -> str:
    """Cuts a stem so that the name with a number has at most 120 bytes; avoids Windows' device names."""
    stem = f"image-{stem}" if _DEVICES.fullmatch(stem) else stem
    limit = NAME_BYTES - NUMBER_BYTES - len(suffix)
    return stem.encode()[:limit].decode(errors="ignore").rstrip(". ") or "image"
