"""The folders clipgen keeps things in: `$CLIPGEN_HOME` if it is set, else the platform's own."""

from __future__ import annotations

import os
from pathlib import Path


def _folder(kind: str) -> Path:
    """Returns the folder of one kind, `config` or `data`; under `$CLIPGEN_HOME` both are that folder."""
    home = os.environ.get("CLIPGEN_HOME")
    if home:
        return Path(home).expanduser()
    from platformdirs import user_config_path, user_data_path

    return user_config_path("clipgen", appauthor=False) if kind == "config" else user_data_path("clipgen", False)


def config_dir() -> Path:
    """Returns the folder of config.toml and the user's presets; it need not exist."""
    return _folder("config")


def data_dir() -> Path:
    """Returns the folder of what clipgen itself records; it need not exist."""
    return _folder("data")


def config_path() -> Path:
    """Returns the user's config.toml."""
    return config_dir() / "config.toml"


def presets_dir() -> Path:
    """Returns the folder of the user's own presets, one TOML file each."""
    return config_dir() / "presets"


def history_path() -> Path:
    """Returns the SQLite file of the history."""
    return data_dir() / "history.db"


def index_dir() -> Path:
    """Returns the folder of what CLIP saw of pictures, a file a CLIP."""
    return data_dir() / "index"
