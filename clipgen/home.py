"""The folders of clipgen's own files, `$CLIPGEN_HOME` or the platform's, and where clipgen was installed from."""

from __future__ import annotations

import json
import os
import shlex
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def _folder(kind: str) -> Path:
    """Returns the folder for `config` or `data`; `$CLIPGEN_HOME` is both."""
    home = os.environ.get("CLIPGEN_HOME")
    if home:
        return Path(home).expanduser()
    from platformdirs import user_config_path, user_data_path

    return user_config_path("clipgen", appauthor=False) if kind == "config" else user_data_path("clipgen", False)


def config_dir() -> Path:
    """Returns the folder of config.toml and the user's presets; it may not exist."""
    return _folder("config")


def data_dir() -> Path:
    """Returns the folder of the history and the image indexes; it may not exist."""
    return _folder("data")


def config_path() -> Path:
    """Returns the path of the user's config.toml."""
    return config_dir() / "config.toml"


def presets_dir() -> Path:
    """Returns the folder of the user's presets, one TOML file each."""
    return config_dir() / "presets"


def history_path() -> Path:
    """Returns the path of the history, an SQLite file."""
    return data_dir() / "history.db"


def index_dir() -> Path:
    """Returns the folder of the indexes of image features, one file per CLIP."""
    return data_dir() / "index"


def adapter_folders(kind: str) -> tuple[Path, Path]:
    """Returns the folders of the user's `loras` or `embeddings`: in the working directory, then in the data folder."""
    return Path(kind), data_dir() / kind


def adapter_files(kind: str) -> dict[str, Path]:
    """Returns the safetensors files in the folders of `loras` or `embeddings`, subfolders included.

    The key is the file name without its suffix; of equal names the first one counts.
    """
    paths = [path for folder in adapter_folders(kind) for path in sorted(folder.rglob("*.safetensors"))]
    return {path.stem: path for path in reversed(paths)}


def install_command(extra: str = "", *, reinstall: bool = False) -> str:
    """Returns the pip command that installs this copy of clipgen again, from its checkout, wheel or repository.

    The origin is the one that pip recorded in direct_url.json (PEP 610). The name `clipgen` alone would be wrong: on
    the package index it belongs to another project.

    Args:
        extra: An optional extra, for example `train`.
        reinstall: Whether files that are already installed are replaced.
    """
    extras = f"[{extra}]" if extra else ""
    record = distribution("clipgen").read_text("direct_url.json")
    if record is None:
        return f"install clipgen{extras} again from its checkout or wheel"
    origin = json.loads(record)
    options = ["--force-reinstall", "--no-deps"] if reinstall else []
    url = urlsplit(origin["url"])
    if url.scheme == "file":
        options += ["-e"] if origin.get("dir_info", {}).get("editable") else []
        return shlex.join(["pip", "install", *options, url2pathname(url.path) + extras])
    vcs = origin.get("vcs_info")
    source = f"{vcs['vcs']}+{origin['url']}@{vcs['commit_id']}" if vcs else origin["url"]
    return shlex.join(["pip", "install", *options, f"clipgen{extras} @ {source}"])
