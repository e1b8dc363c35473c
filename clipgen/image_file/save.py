"""Writes new files atomically under a name that is not taken, safe against crashes and concurrent processes."""

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
_TEMPORARY = re.compile(r"\..+\.(?:\d+\.[0-9a-f]{8}\.tmp|claim)")
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def save_bytes(data: bytes, folder: Path, stem: str, suffix: str) -> Path:
    """Writes a new file `stem + suffix`, or `stem-1`, `stem-2` ... if the name is taken; returns its path.

    The file appears complete or not at all, nothing is overwritten, and concurrent processes get different names.
    Raises OutputError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(data, folder, stem + suffix) as temporary:
            path = _link(temporary, folder, stem, suffix)
        _sync_folder(folder)
    except OSError as error:
        raise _output_error(folder / (stem + suffix), len(data), error) from None
    return path


def check_writable(folder: Path, bytes_needed: int) -> None:
    """Checks that a folder can be made, is writable, and has `bytes_needed` of free space; raises OutputError.

    Temporary files of killed processes that are older than an hour are removed.
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
    """Removes clipgen's temporary files and claim files that are older than an hour."""
    oldest = time.time() - STALE_SECONDS
    for entry in os.scandir(folder):
        if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(OSError):  # another process removed it, or owns it
                if entry.stat(follow_symlinks=False).st_mtime < oldest:
                    os.unlink(entry)


@contextlib.contextmanager
def _temporary(data: bytes, folder: Path, name: str) -> Iterator[Path]:
    """Writes the bytes to a hidden temporary file, and removes it afterwards."""
    path = folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with path.open("xb") as file:  # exclusive, so that it never follows a link
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def _link(temporary: Path, folder: Path, stem: str, suffix: str) -> Path:
    for path in _candidates(folder, stem, suffix):
        try:
            os.link(temporary, path)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not _rename_to(temporary, path):
                continue
        return path
    raise AssertionError("_candidates is infinite")


def _rename_to(temporary: Path, path: Path) -> bool:
    """Renames to a free name on file systems without hard links; a claim file locks the name for other processes."""
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
    """Yields the name without a number, then with numbers from the highest existing one + 1."""
    yield folder / (stem + suffix)
    numbered = re.compile(re.escape(stem) + r"-(\d{1,9})" + re.escape(suffix))
    taken = [int(match[1]) for name in os.listdir(folder) if (match := numbered.fullmatch(name))]
    for number in count(max(taken, default=0) + 1):
        yield folder / f"{stem}-{number}{suffix}"


def _sync_folder(folder: Path) -> None:
    """Flushes the folder, so that the new name survives a power failure; Windows has no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _output_error(path: Path, size: int, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"Cannot write '{printable_path(path)}' ({size:,} bytes): {reason}.", field="output")
