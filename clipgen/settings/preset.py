"""Presets: TOML files with Settings fields and a style that wraps the prompt, found by their name."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from clipgen import home
from clipgen.errors import PresetError, SettingsError
from clipgen.settings.checks import (
    PRESET_NAME,
    check_line,
    is_weight_file,
    names_path,
    printable,
    split_target,
    unknown_name,
)
from clipgen.settings.settings import ADAPTER_FIELDS, FIELDS, Settings, check_field

MAX_BYTES = 64 * 1024
MAX_LINE = 4_096
SECTIONS = ("schema", "title", "about", "settings", "style")
SETTINGS = tuple(name for name in FIELDS if name not in ("preset", "seed", "prompt_template"))
SLOTS = {"prompt": "{prompt}", "negative_prompt": "{negative_prompt}"}
LOCAL_PATH = re.compile(r"[./~\\]|[A-Za-z]:")
PresetSource = Literal["bundled", "user"]


@dataclass(frozen=True)
class Preset:
    """A named set of Settings fields, and optional style texts with one slot for the prompt or the negative prompt.

    `overrides` = a preset of the user that replaces a bundled one of the same name.
    """

    name: str
    title: str
    about: str
    settings: dict[str, Any]
    style_prompt: str | None
    style_negative_prompt: str | None
    source: PresetSource
    path: Path
    overrides: bool = False

    def apply(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the preset's settings overridden by `values`, with the style applied to the prompts.

        A prompt that already has the style is not changed. `preset` is set to the name of this preset.
        """
        merged = {**self.settings, **values, "preset": self.name}
        for field, style in (("prompt", self.style_prompt), ("negative_prompt", self.style_negative_prompt)):
            if style is not None and (field != "prompt" or merged.get("prompt")):
                merged[field] = _styled(style, SLOTS[field], merged.get(field, ""))
        return merged


def _styled(style: str, slot: str, text: str) -> str:
    before, after = style.split(slot)
    alone = (before + after).strip(" ,")
    if text.strip() in ("", alone):
        return alone
    return text if text.startswith(before) and text.endswith(after) else before + text + after


def preset_names() -> list[str]:
    """Returns the sorted names of all presets without reading the files."""
    return sorted({*_bundled_files(), *_user_files()})


def list_presets() -> list[Preset]:
    """Returns all presets sorted by name; raises PresetError for the first malformed one."""
    return [load_preset(name) for name in preset_names()]


def load_preset(name: str) -> Preset:
    """Returns a preset by its name, the user's before a bundled one; raises PresetError with the existing names."""
    users, bundled = _user_files(), _bundled_files()
    if name in users:
        return read_preset(users[name], "user", overrides=name in bundled)
    if name in bundled:
        return read_preset(bundled[name], "bundled")
    names = preset_names()
    near = difflib.get_close_matches(name[:60], names, n=1, cutoff=0.75)
    guess = f" Did you mean {near[0]}?" if near else ""
    message = f"Unknown preset '{printable(name)}'.{guess} Presets: {', '.join(names)}."
    raise PresetError(message, field="preset", allowed=names)


def read_preset(path: Path, source: PresetSource = "user", *, overrides: bool = False) -> Preset:
    """Reads and checks a preset file; raises PresetError with the file, the key and the nearest valid key."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from error
    return parse_preset(data, path, source, overrides=overrides)


def parse_preset(data: bytes, path: Path, source: PresetSource = "user", *, overrides: bool = False) -> Preset:
    """Parses and checks the content of the preset file `path`; raises PresetError."""
    if path.suffix != ".toml" or not PRESET_NAME.fullmatch(path.stem):
        raise _refused(path, "the name must be a-z, 0-9, - and _, at most 64, then .toml")
    table = parse_toml(data, path)
    _known_keys(path, "key", table, SECTIONS)
    if repr(schema := table.get("schema")) != "1":
        raise _refused(path, f"schema must be 1, got '{printable(schema)}'")
    style = _style(path, _section(path, table, "style"))
    return Preset(
        name=path.stem,
        title=_words(path, table, "title"),
        about=_words(path, table, "about"),
        settings=_settings(path, _section(path, table, "settings")),
        style_prompt=style.get("prompt"),
        style_negative_prompt=style.get("negative_prompt"),
        source=source,
        path=path,
        overrides=overrides,
    )


def parse_toml(data: bytes, path: Path) -> dict[str, Any]:
    """Parses TOML of at most 64 KB and 4,096 characters per line; raises PresetError with the name of the file."""
    if len(data) > MAX_BYTES:
        raise _refused(path, f"larger than {MAX_BYTES // 1024} KB")
    try:
        text = data.decode("utf-8-sig")
        if any(len(line) > MAX_LINE for line in text.split("\n")):
            raise _refused(path, f"a line is longer than {MAX_LINE:,} characters")
        return tomllib.loads(text)
    except RecursionError as error:
        raise _refused(path, "nested too deeply") from error
    except ValueError as error:  # not UTF-8, not TOML, an integer of thousands of digits
        raise _refused(path, f"not valid TOML: {' '.join(str(error).split())}") from error


def _user_files() -> dict[str, Path]:
    return _files(home.presets_dir())


def _bundled_files() -> dict[str, Path]:
    return _files(Path(str(files("clipgen.presets"))))


def _files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in folder.glob("*.toml") if PRESET_NAME.fullmatch(path.stem)}


def _refused(path: Path, what: str) -> PresetError:
    return PresetError(f"{printable(path.name)}: {what}", field="preset")


def _known_keys(path: Path, kind: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise _refused(path, unknown_name(kind, key, known))


def _section(path: Path, table: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise _refused(path, f"[{name}] must be a section, got '{printable(section)}'")
    return section


def _words(path: Path, table: Mapping[str, Any], name: str) -> str:
    try:
        return check_line(name, table.get(name, ""))
    except SettingsError as error:
        raise _refused(path, str(error)) from error


def _settings(path: Path, section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the [settings] in their own types, after checking them and their combinations."""
    _known_keys(path, "[settings] key", section, SETTINGS)
    try:
        checked = Settings.from_dict({"prompt": "a", **section}).to_dict()
    except SettingsError as error:
        raise _refused(path, f"[settings] {error}") from error
    for name in ("model", "vae"):
        value = checked[name] or ""
        if LOCAL_PATH.match(value) or is_weight_file(value):
            raise _refused(path, f"[settings] {name} must be a bundled name or a hub id, got '{printable(value)}'")
    for name in ADAPTER_FIELDS:
        if paths := [target for target in checked[name] if names_path(split_target(target)[0])]:
            raise _refused(path, f"[settings] {name} must be a name in a folder, got '{printable(paths[0])}'")
    return {name: checked[name] for name in section}


def _style(path: Path, section: Mapping[str, Any]) -> dict[str, str]:
    _known_keys(path, "[style] key", section, tuple(SLOTS))
    try:
        style: dict[str, str] = {name: check_field("prompt", text) for name, text in section.items()}
    except SettingsError as error:
        raise _refused(path, f"[style] {error}") from error
    for name, text in style.items():
        if text.count(SLOTS[name]) != 1:
            raise _refused(path, f"[style] {name} must contain {SLOTS[name]} once, got '{printable(text)}'")
    return style
