"""Reads clipgen.toml and config.toml, and changes one key of config.toml without touching the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipgen.atomic import replace_file
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
TYPE_NAMES = {str: "text", int: "a whole number", bool: "true or false"}
CHOICES: Mapping[str, tuple[str, ...]] = {"output.format": ("png", "jpeg", "webp"), "output.show": MODES}


@dataclass(frozen=True)
class UserConfig:
    """The contents of the user's config.toml: Settings fields, and the values of its tables by `table.key`."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)


def read_project(path: Path) -> dict[str, Any]:
    """Returns the Settings fields of a clipgen.toml. Raises SettingsError for any other key."""
    return _settings(path, read_toml(path))


def read_user() -> UserConfig:
    """Returns the user's config.toml, empty if the file does not exist; raises SettingsError."""
    path = config_path()
    if not path.is_file():
        return UserConfig()
    values = read_toml(path)
    tables = {name: values.pop(name) for name in TABLES if isinstance(values.get(name), dict)}
    return UserConfig(_settings(path, values, also=tuple(TABLES)), _tables(path, tables))


def read_toml(path: Path) -> dict[str, Any]:
    """Parses a TOML file of at most 64 KiB and 4,096 characters per line. Raises SettingsError with the file's name."""
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
    """Returns a field's value in its own type; a string is read as a flag's value, for example seed = "random"."""
    try:
        return coerce(name, value) if isinstance(value, str) else check_field(name, value)
    except SettingsError as error:
        raise SettingsError(f"'{path}': {error}", field=name, allowed=error.allowed) from error


def _tables(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the checked values of the tables by `table.key`."""
    values_by_key = {}
    for table, values in tables.items():
        for key, value in values.items():
            if key not in TABLES[table]:
                raise SettingsError(f"'{path}': {unknown_name(f'key in [{table}]', key, TABLES[table])}")
            values_by_key[f"{table}.{key}"] = check_table_value(f"{table}.{key}", value)
    return values_by_key


def check_table_value(key: str, value: Any) -> Any:
    """Returns the value of a `table.key` if it is valid; raises SettingsError."""
    table, _, name = key.partition(".")
    kind: type = TABLES[table][name]
    if type(value) is not kind:
        raise SettingsError(f"{key} must be {TYPE_NAMES[kind]}, got '{value}'", field=key)
    if key in CHOICES and value not in CHOICES[key]:
        raise SettingsError(f"{key} must be {', '.join(CHOICES[key])}, got '{value}'", field=key, allowed=CHOICES[key])
    if key == "output.quality" and value not in range(1, 101):
        raise SettingsError(f"{key} must be 1 to 100, got '{value}'", field=key)
    return value


def check_key(key: str) -> None:
    """Raises SettingsError with the nearest key if config.toml has no such key."""
    if key not in KEYS:
        raise SettingsError(unknown_name("key", key, KEYS), field=key, allowed=KEYS)


def parse(key: str, text: str) -> Any:
    """Returns the checked value of a key from the text of `config set`, None to remove it; raises SettingsError."""
    check_key(key)
    if text == "none":
        return None
    if key in FIELDS:
        value = coerce(key, text)
        return list(value) if isinstance(value, tuple) else value
    table, _, name = key.partition(".")
    kind = TABLES[table][name]
    if kind is bool:
        return check_table_value(key, {"true": True, "false": False}.get(text.lower(), text))
    return check_table_value(key, int(text) if kind is int and re.fullmatch(r"[+-]?\d{1,9}", text) else text)


def to_text(value: Any) -> str:
    """Returns a value in the text form of `config set`; a list has one item per line."""
    if isinstance(value, list | tuple):
        return "\n".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def write(key: str, value: Any) -> None:
    """Sets one key of config.toml, or removes it if the value is None; comments and layout stay as they are.

    Raises SettingsError if the file is no valid TOML, OutputError if it cannot be written.
    """
    import tomlkit

    path = config_path()
    if path.is_file():
        read_toml(path)
    document = tomlkit.parse(path.read_text("utf-8")) if path.is_file() else tomlkit.document()
    table_name, _, name = key.rpartition(".")
    if table_name and table_name not in document and value is not None:
        document[table_name] = tomlkit.table()
    table: Any = document.get(table_name, {}) if table_name else document
    if value is None:
        table.pop(name, None)
    else:
        table[name] = value
    try:
        replace_file(path, tomlkit.dumps(document))
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror}") from error
