"""The history of generated images: one SQLite file with one row per image."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clipgen.errors import ClipgenError
from clipgen.hashing import sha256_of
from clipgen.home import history_path
from clipgen.settings.settings import Settings

VERSION = 1
BUSY_SECONDS = 10.0  # how long a write waits for those of other processes
COLUMNS = "id, time, path, sha256, settings, clip, parent"
SCHEMA = """
create table if not exists pictures (
    id integer primary key autoincrement,
    time text not null,
    path text not null,
    sha256 text not null,
    settings text not null,
    clip text,
    parent integer
);
create index if not exists pictures_sha256 on pictures (sha256);
"""


@dataclass(frozen=True)
class Entry:
    """One image of the history.

    Attributes:
        id: The number of the image in the history.
        time: When the file was written.
        path: Where it was written.
        sha256: The SHA-256 of the file.
        settings: The settings of the image.
        clip: The CLIP score as in the record; None without one.
        parent: The id of the image that `again` repeated; None for a new image.
    """

    id: int
    time: datetime
    path: Path
    sha256: str
    settings: Settings
    clip: dict[str, Any] | None
    parent: int | None

    def to_dict(self) -> dict[str, Any]:
        """Returns every field, JSON-safe."""
        return {
            **vars(self),
            "time": self.time.isoformat(),
            "path": str(self.path),
            "settings": self.settings.to_dict(),
        }


@contextlib.contextmanager
def _open() -> Iterator[sqlite3.Connection]:
    """Opens the history in a transaction, and creates it if needed; raises ClipgenError if the file cannot be used."""
    path = history_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection, connection:
            _migrate(connection)
            yield connection
    except (OSError, sqlite3.Error, UnicodeError) as error:
        message = f"The history '{path}' cannot be used ({error}). Move it away to start a new one."
        raise ClipgenError(message) from error


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("pragma user_version").fetchone()
    if version > VERSION:
        raise ClipgenError(f"The history '{history_path()}' was written by a newer clipgen (version {version}).")
    if version < VERSION:
        connection.executescript(SCHEMA)
        connection.execute(f"pragma user_version = {VERSION}")


def record(path: Path, settings: Settings, *, clip: Mapping[str, Any] | None = None, parent: int | None = None) -> int:
    """Adds an image file and returns its id; raises ClipgenError."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    digest = sha256_of(path)
    values = (now, str(path.absolute()), digest, _json(settings.to_dict()), clip and _json(clip), parent)
    with _open() as connection:
        cursor = connection.execute(
            "insert into pictures (time, path, sha256, settings, clip, parent) values (?, ?, ?, ?, ?, ?)", values
        )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def last(back: int = 0) -> Entry | None:
    """Returns the newest image, or the one `back` places before it; None if there are fewer."""
    return next(iter(_select("order by id desc limit 1 offset ?", [back])), None)


def get(number: int) -> Entry:
    """Returns the image with an id; raises ClipgenError if there is none."""
    if not (entries := _select("where id = ?", [number])):
        raise ClipgenError(f"The history has no picture '{number}'. See: clipgen history list")
    return entries[0]


def find(words: Sequence[str] = (), *, limit: int = 20) -> list[Entry]:
    """Returns the newest images whose settings or path contain every word, newest first."""
    where = " and ".join(["(settings like ? escape '!' or path like ? escape '!')"] * len(words)) or "true"
    patterns = [f"%{_escaped(word)}%" for word in words for _ in range(2)]
    return _select(f"where {where} order by id desc limit ?", [*patterns, limit])


def paths() -> list[Path]:
    """Returns the paths of all images, newest first."""
    if not history_path().exists():
        return []
    with _open() as connection:
        return [Path(path) for (path,) in connection.execute("select path from pictures order by id desc")]


def find_file(path: Path) -> Entry | None:
    """Returns the newest image with the same content as a file, which may have been moved; None if there is none."""
    digest = sha256_of(path)
    return next(iter(_select("where sha256 = ? order by id desc limit 1", [digest])), None)


def paths_of(digest: str) -> list[Path]:
    """Returns the paths of the images with a SHA-256, newest first."""
    return [entry.path for entry in _select("where sha256 = ? order by id desc", [digest])]


def forget(numbers: Sequence[int]) -> int:
    """Removes images from the history and returns their number; the files stay."""
    marks = ", ".join("?" * len(numbers))
    return _delete(f"where id in ({marks})", list(numbers))


def forget_all() -> int:
    """Removes all images from the history and returns their number; the files stay."""
    return _delete("", [])


def _delete(where: str, values: list[Any]) -> int:
    if not history_path().exists():
        return 0
    with _open() as connection:
        return connection.execute(f"delete from pictures {where}", values).rowcount


def _select(rest: str, values: list[Any]) -> list[Entry]:
    if not history_path().exists():
        return []
    with _open() as connection:
        rows = connection.execute(f"select {COLUMNS} from pictures {rest}", values).fetchall()
    return [_entry(*row) for row in rows]


def _entry(
    number: int, time: str, path: str, sha256: str, settings: str, clip: str | None, parent: int | None
) -> Entry:
    """Returns a row as an Entry; fields that this version does not know are left out."""
    values = {key: value for key, value in json.loads(settings).items() if key in Settings.__dataclass_fields__}
    known_settings = Settings.from_dict(values)
    score = json.loads(clip) if clip else None
    return Entry(number, datetime.fromisoformat(time), Path(path), sha256, known_settings, score, parent)


def _escaped(word: str) -> str:
    """Returns a word with the wildcards of SQL's `like` escaped."""
    return word.replace("!", "!!").replace("%", "!%").replace("_", "!_")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
