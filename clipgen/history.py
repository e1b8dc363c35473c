"""What was made, searchable: one SQLite file with a row a picture."""

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
BUSY_SECONDS = 10.0  # other processes of a batch write too
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
    """One picture: its number, when and where it was written, what it was made from.

    `clip` is the record's score or None; `parent` the picture it was made again from, or None.
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
    """Opens the history inside one transaction, making it first; raises ClipgenError when the file is unusable."""
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
    """Adds a written picture and returns its number; raises ClipgenError."""
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
    """Returns the newest picture, or the one `back` before it; None when there are not so many."""
    return next(iter(_select("order by id desc limit 1 offset ?", [back])), None)


def get(number: int) -> Entry:
    """Returns one picture; raises ClipgenError when the history has no such number."""
    if not (found := _select("where id = ?", [number])):
        raise ClipgenError(f"The history has no picture '{number}'. See: clipgen history list")
    return found[0]


def find(words: Sequence[str] = (), *, limit: int = 20) -> list[Entry]:
    """Returns the newest pictures, newest first, whose settings or path hold every word."""
    where = " and ".join(["(settings like ? escape '!' or path like ? escape '!')"] * len(words)) or "true"
    patterns = [f"%{_escaped(word)}%" for word in words for _ in range(2)]
    return _select(f"where {where} order by id desc limit ?", [*patterns, limit])


def paths() -> list[Path]:
    """Returns where every picture was written, the newest first."""
    if not history_path().exists():
        return []
    with _open() as connection:
        return [Path(path) for (path,) in connection.execute("select path from pictures order by id desc")]


def find_file(path: Path) -> Entry | None:
    """Returns the newest picture with the very bytes of a file, wherever it lies now; None for a stranger."""
    digest = sha256_of(path)
    return next(iter(_select("where sha256 = ? order by id desc limit 1", [digest])), None)


def paths_of(digest: str) -> list[Path]:
    """Returns where pictures with that SHA-256 were written, the newest first."""
    return [entry.path for entry in _select("where sha256 = ? order by id desc", [digest])]


def forget(numbers: Sequence[int]) -> int:
    """Removes pictures from the history, not from the disk, and returns how many it had."""
    marks = ", ".join("?" * len(numbers))
    return _delete(f"where id in ({marks})", list(numbers))


def forget_all() -> int:
    """Empties the history and returns how many pictures it had; the files stay."""
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
    """Returns a row as an Entry; a setting of a later clipgen is left out."""
    values = {key: value for key, value in json.loads(settings).items() if key in Settings.__dataclass_fields__}
    made = Settings.from_dict(values)
    score = json.loads(clip) if clip else None
    return Entry(number, datetime.fromisoformat(time), Path(path), sha256, made, score, parent)


def _escaped(word: str) -> str:
    """Returns a word with the wildcards of `like` taken literally."""
    return word.replace("!", "!!").replace("%", "!%").replace("_", "!_")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
