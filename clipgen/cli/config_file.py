"""Reads clipgen.toml and config.toml, and changes one key of config.toml without touching the rest."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipgen.cli.terminal_image import MODES
from clipgen.errors import OutputError, PresetError, SettingsError
from clipgen.home import config_path
from clipgen.settings.checks import unknown_name
from clipgen.settings.preset import parse_toml
from clipgen.settings.settings import FIELDS, check_field, coerce

TABLES: Mapping[str, Mapping[str, type]] = {
    "output": {"path": str, "format": str, "quality": int, "show": str},
    "history": {"on": bool},
}
KEYS = (*FIELDS, *(f"{table}.{key}" for table, keys in TABLES.items() for key in keys))
KINDS = {str: "text", int: "a whole number", bool: "true or false"}
CHOICES: Mapping[str, tuple[str, ...]] = {"output.format": ("png", "jpeg", "webp"), "output.show": MODES}


@dataclass(frozen=True)
class UserConfig:
    """What the user's config.toml says: Settings fields, and the tables by `table.key`."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)


def read_project(path: Path) -> dict[str, Any]:
    """Returns the Settings fields of a clipgen.toml, which may hold nothing else; raises SettingsError."""
    return _settings(path, read_toml(path))


def read_user() -> UserConfig:
    """Returns the user's config.toml, empty when there is none; raises SettingsError."""
    path = config_path()
    if not path.is_file():
        return UserConfig()
    values = read_toml(path)
    tables = {name: values.pop(name) for name in TABLES if isinstance(values.get(name), dict)}
    return UserConfig(_settings(path, values, also=tuple(TABLES)), _tables(path, tables))


def read_toml(path: Path) -> dict[str, Any]:
    """Parses a TOML file of at most 64 KiB and 4,096 characters a line; raises SettingsError naming the file."""
    try:
        return parse_toml(path.read_bytes(), path)
    except (OSError, PresetError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{path.name}: ")
        raise SettingsError(f"'{path}': {reason}") from error


def _settings(path: Path, values: Mapping[str, Any], also: tuple[str, ...] = ()) -> dict[str, Any]:
    for key in values:
        if key not in FIELDS:
            raise SettingsError(f"'{path}': {unknown_name('key', key, (*FIELDS, *also))}", field=key)
    return {name: _checked(path, name, value) for name, value in values.items()}


def _checked(path: Path, name: str, value: Any) -> Any:
    """Returns a field's value in its own type; text stands for what flags take, such as seed = "random"."""
    try:
        return coerce(name, value) if isinstance(value, str) else check_field(name, value)
    except SettingsError as error:
        raise SettingsError(f"'{path}': {error}", field=name, allowed=error.allowed) from error


def _tables(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found = {}
    for table, values in tables.items():
        for key, value in values.items():
            if key not in TABLES[table]:
                raise SettingsError(f"'{path}': {unknown_name(f'key in [{table}]', key, TABLES[table])}")
            found[f"{table}.{key}"] = check_table(f"{table}.{key}", value)
    return found


def check_table(key: str, value: Any) -> Any:
    """Returns the value of a `table.key` when it fits; raises SettingsError."""
    table, _, name = key.partition(".")
    kind: type = TABLES[table][name]
    if type(value) is not kind:
        raise SettingsError(f"{key} must be {KINDS[kind]}, got '{value}'", field=key)
    if key in CHOICES and value not in CHOICES[key]:
        raise SettingsError(f"{key} must be {', '.join(CHOICES[key])}, got '{value}'", field=key, allowed=CHOICES[key])
    if key == "output.quality" and value not in range(1, 101):
        raise SettingsError(f"{key} must be 1 to 100, got '{value}'", field=key)
    return value


def known(key: str) -> None:
    """Raises SettingsError, naming the nearest key, for one that config.toml cannot hold."""
    if key not in KEYS:
        raise SettingsError(unknown_name("key", key, KEYS), field=key, allowed=KEYS)


def parse(key: str, text: str) -> Any:
    """Returns the value of a key as `config set` takes it, checked, None to remove it; raises SettingsError."""
    known(key)
    if text == "none":
        return None
    if key in FIELDS:
        value = coerce(key, text)
        return list(value) if isinstance(value, tuple) else value
    table, _, name = key.partition(".")
    kind = TABLES[table][name]
    if kind is bool:
        return check_table(key, {"true": True, "false": False}.get(text.lower(), text))
    return check_table(key, int(text) if kind is int and re.fullmatch(r"[+-]?\d{1,9}", text) else text)


def plain(value: Any) -> str:
    """Returns a value as `config set` would take it: a list has an item a line."""
    if isinstance(value, list | tuple):
        return "\n".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def write(key: str, value: Any) -> None:
    """Sets one key of config.toml, None removes it; comments and everything else stay.

    Raises SettingsError when the file's layout allows no change of a line, OutputError when it cannot be written.
    """
    path = config_path()
    table, _, name = key.rpartition(".")
    before = read_toml(path) if path.is_file() else {}
    wanted = _with(before, table, name, value)
    if wanted == before:
        return
    text = path.read_text("utf-8") if path.is_file() else ""
    changed = edited(text, table, name, None if value is None else f"{name} = {_toml(value)}")
    if not _says(changed, wanted):
        raise SettingsError(f"'{path}' is laid out so that '{key}' cannot be changed. Change it by hand.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(changed, "utf-8")
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror}") from error


def _says(text: str, wanted: Mapping[str, Any]) -> bool:
    """Tells whether TOML text parses to exactly these values."""
    try:
        return tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _with(values: dict[str, Any], table: str, name: str, value: Any) -> dict[str, Any]:
    """Returns parsed TOML with one key changed."""
    old = values.get(table, {}) if table else values
    inner = {**old, name: value} if value is not None else {key: item for key, item in old.items() if key != name}
    return {**values, table: inner} if table and inner != old else values if table else inner


def edited(text: str, table: str, name: str, line: str | None) -> str:
    """Returns TOML text with the line of one key replaced, added or, with None, removed."""
    lines = text.splitlines()
    first, last = _section(lines, table)
    if first is None:
        return "\n".join([*lines, *([""] if lines else []), f"[{table}]", line, ""]) if line else text
    here = [i for i in range(first, last) if re.match(rf"\s*{re.escape(name)}\s*=", lines[i])]
    if here:
        lines[here[0] : here[0] + 1] = [line] if line else []
    elif line:
        while last > first and not lines[last - 1].strip():
            last -= 1
        lines.insert(last, line)
    return "\n".join([*lines, ""])


def _section(lines: list[str], table: str) -> tuple[int | None, int]:
    """Returns the first and last + 1 line of a table's keys; the top level begins at line 0, a missing one at None."""
    heads = [(i, line.split("#")[0].strip()) for i, line in enumerate(lines) if line.lstrip().startswith("[")]
    starts = [i + 1 for i, head in heads if head == f"[{table}]"] if table else [0]
    if not starts:
        return None, len(lines)
    return starts[0], next((i for i, _ in heads if i >= starts[0]), len(lines))


def _toml(value: Any) -> str:
    """Returns a text, number, truth value or list as TOML writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
    return repr(value)
