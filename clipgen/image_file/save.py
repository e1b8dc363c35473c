"""Bytes into a folder: whole or not at all, under a name nobody had, even if the process dies at any moment."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from clipgen.errors import OutputError
from clipgen.image_file.paths import printable_path

STALE_SECONDS = 3_600
_OURS = re.compile(r"\..+\.(?:\d+\.[0-9a-f]{8}\.tmp|claim)")
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def save_bytes(data: bytes, folder: Path, stem: str, suffix: str) -> Path:
    """Writes a new file `stem + suffix` in a folder, or `stem-1`, `stem-2` ... where that is taken; returns its path.

    The file appears complete or not at all, nothing is overwritten, and processes that write at once get different
    names. Raises OutputError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(data, folder, stem + suffix) as temporary:
            path = _place(temporary, folder, stem, suffix)
        _sync_folder(folder)
    except OSError as error:
        raise _output_error(folder / (stem + suffix), len(data), error) from None
    return path


def check_writable(folder: Path, bytes_needed: int) -> None:
    """Makes a folder, writes and removes a probe in it, and holds the free space against `bytes_needed`.

    Leftovers of killed processes that are older than an hour are swept out. Raises OutputError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(b"probe", folder, "probe"):
            pass
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _output_error(folder, bytes_needed, error) from None
    if free < bytes_needed:
        raise OutputError(
            f"'{printable_path(folder)}' needs {bytes_needed:,} bytes, {free:,} are free.", field="output"
        )
    sweep(folder)


def sweep(folder: Path) -> None:
    """Removes this program's own temporary files and claims older than an hour, nothing else."""
    oldest = time.time() - STALE_SECONDS
    for entry in os.scandir(folder):
        if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(OSError):  # another process sweeps too, or owns it
                if entry.stat(follow_symlinks=False).st_mtime < oldest:
                    os.unlink(entry)


@contextlib.contextmanager
def _temporary(data: bytes, folder: Path, name: str) -> Iterator[Path]:
    """Holds the bytes in a hidden file on the disk, and removes that name afterwards."""
    path = folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with path.open("xb") as file:  # exclusive: never follows a link
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def _place(temporary: Path, folder: Path, stem: str, suffix: str) -> Path:
    for path in _candidates(folder, stem, suffix):
        try:
            os.link(temporary, path)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not _place_without_link(temporary, path):
                continue
        return path
    raise AssertionError("the numbers never end")


def _place_without_link(temporary: Path, path: Path) -> bool:
    """Renames onto a free name on file systems without hard links; a claim file keeps other clipgens off it."""
    claim = path.with_name(f".{path.name}.claim")
    try:
        claim.open("xb").close()
    except FileExistsError:
        return False
    try:
        if os.path.lexists(path):
            return False
        os.rename(temporary, path)
        return True
    finally:
        claim.unlink()


def _candidates(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    """Yields the plain name, then numbered ones from the highest that exists + 1."""
    yield folder / (stem + suffix)
    numbered = re.compile(re.escape(stem) + r"-(\d{1,9})" + re.escape(suffix))
    taken = [int(match[1]) for name in os.listdir(folder) if (match := numbered.fullmatch(name))]
    for number in count(max(taken, default=0) + 1):
        yield folder / f"{stem}-{number}{suffix}"


def _sync_folder(folder: Path) -> None:
    """Makes the new name outlive a power cut; Windows has no such call for folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _output_error(path: Path, size: int, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"Cannot write '{printable_path(path)}' ({size:,} bytes): {reason}.", field="output")
