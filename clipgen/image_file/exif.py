"""Writes EXIF with the program's name and a UserComment of type 7, and reads the texts in any EXIF.

Pillow writes UserComment as type 1 (BYTE), which piexif, and therefore A1111 and Forge, cannot read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

SOFTWARE, EXIF_IFD, USER_COMMENT = 0x0131, 0x8769, 0x9286
ASCII, LONG, UNDEFINED = 2, 4, 7
MAX_ENTRIES = 1_000
_NAMES = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    SOFTWARE: "Software",
    USER_COMMENT: "UserComment",
}
_TEXT_TYPES = {1, ASCII, UNDEFINED}  # one byte per unit


def build_exif(software: str, comment: str | None) -> bytes:
    """Returns a big-endian TIFF: Software in IFD0 and, unless `comment` is None, UserComment in the Exif IFD.

    The comment is `UNICODE`, a NUL and UTF-16-BE text, of type 7, counted in bytes (EXIF 2.32, section 4.6.5).
    """
    name = software.encode("ascii") + b"\0"
    if comment is None:
        return _header() + _ifd([(SOFTWARE, ASCII, name)], 8)
    text = b"UNICODE\0" + comment.encode("utf-16-be")
    first = _ifd([(SOFTWARE, ASCII, name), (EXIF_IFD, LONG, b"\0\0\0\0")], 8)
    start = 8 + len(first)
    first = _ifd([(SOFTWARE, ASCII, name), (EXIF_IFD, LONG, struct.pack(">I", start))], 8)
    return _header() + first + _ifd([(USER_COMMENT, UNDEFINED, text)], start)


def _header() -> bytes:
    return struct.pack(">2sHI", b"MM", 42, 8)


def _ifd(entries: list[tuple[int, int, bytes]], start: int) -> bytes:
    """Packs one directory that begins at byte `start`; values longer than 4 bytes follow it, padded to even length."""
    rows, long_values = b"", b""
    after = start + 2 + 12 * len(entries) + 4
    for tag, kind, value in entries:
        count = len(value) // 4 if kind == LONG else len(value)
        if len(value) <= 4:
            field = value.ljust(4, b"\0")
        else:
            field = struct.pack(">I", after + len(long_values))
            long_values += value + b"\0" * (len(value) % 2)
        rows += struct.pack(">HHI", tag, kind, count) + field
    return struct.pack(">H", len(entries)) + rows + b"\0\0\0\0" + long_values


def read_exif(data: bytes) -> dict[str, str]:
    """Returns the texts of a TIFF by `exif:` and tag name; `exif:IFD0:UserComment` is one outside the Exif IFD.

    Entries that point outside the data are skipped; damaged data give fewer texts, never an error.
    """
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return {}
    texts: dict[str, str] = {}
    for tag, value in _entries(data, struct.unpack_from(f"{order}I", data, 4)[0], order):
        if tag == EXIF_IFD and len(value) == 4:
            inner = dict(_entries(data, struct.unpack(f"{order}I", value)[0], order))
            if USER_COMMENT in inner:
                texts["exif:UserComment"] = decode_comment(inner[USER_COMMENT])
        elif tag == USER_COMMENT:
            texts["exif:IFD0:UserComment"] = decode_comment(value)
        elif tag in _NAMES:
            texts[f"exif:{_NAMES[tag]}"] = _decode_bytes(value)
    return {name: text for name, text in texts.items() if text}


def _entries(data: bytes, start: int, order: str) -> Iterator[tuple[int, bytes]]:
    """Yields tag and value bytes of the texts and LONGs of one directory that are inside the data."""
    if start + 2 > len(data):
        return
    count = min(struct.unpack_from(f"{order}H", data, start)[0], MAX_ENTRIES, (len(data) - start - 2) // 12)
    for row in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, units = struct.unpack_from(f"{order}HHI", data, row)
        size = 4 * units if kind == LONG else units
        if kind != LONG and kind not in _TEXT_TYPES:
            continue
        position = row + 8 if size <= 4 else struct.unpack_from(f"{order}I", data, row + 8)[0]
        if position + size <= len(data):
            yield tag, data[position : position + size]


def decode_comment(value: bytes) -> str:
    """Decodes a UserComment that begins with `UNICODE` (either byte order), `ASCII`, eight NULs or the text itself."""
    code, text = value[:8], value[8:]
    if code == b"UNICODE\0":
        return _decode_utf16(text)
    return _decode_bytes(text if code in (b"ASCII\0\0\0", b"\0" * 8) else value)


def _decode_utf16(text: bytes) -> str:
    if text[:2] in (b"\xfe\xff", b"\xff\xfe"):
        return text.decode("utf-16", "replace").rstrip("\0")
    little = text[1::2].count(0) > text[::2].count(0)  # the high bytes of ASCII are zero
    return text.decode("utf-16-le" if little else "utf-16-be", "replace").rstrip("\0")


def _decode_bytes(value: bytes) -> str:
    text = value.rstrip(b"\0")
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
