"""Reads all texts in a PNG, JPEG or WebP file into one dictionary, without decoding pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from clipgen.errors import ImageFileError
from clipgen.image_file.exif import read_exif
from clipgen.image_file.paths import printable_path
from clipgen.image_file.strict_json import MAX_TEXT

MAX_FILE = 50_000_000
MAX_ALL_TEXT = 8 * MAX_TEXT
MAX_CHUNKS = 100_000
XMP = "XML:com.adobe.xmp"
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_TEXTS = {b"tEXt", b"zTXt", b"iTXt", b"eXIf"}
_XMP_HEADER, _EXIF_HEADER = b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0"


def read_chunks(path: str | Path) -> dict[str, str]:
    """Returns the texts of an image: PNG keywords, `XML:com.adobe.xmp`, `comment`, `exif:UserComment`, `exif:Model` ...

    The first of two texts with the same name counts; texts over 1 MiB and chunks with a wrong checksum are skipped.
    Raises ImageFileError unless it is a PNG, JPEG or WebP of at most 50 MB.
    """
    try:
        with Path(path).open("rb") as file:
            return _collect(_texts(file, path))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageFileError(f"Cannot read '{printable_path(path)}': {reason}.") from None


def _collect(texts: Iterator[tuple[str, str]]) -> dict[str, str]:
    collected: dict[str, str] = {}
    total = 0
    for name, text in texts:
        total += len(text)
        if total > MAX_ALL_TEXT:
            raise ImageFileError(f"The image contains more than {MAX_ALL_TEXT:,} characters of text.")
        if len(text) <= MAX_TEXT:
            collected.setdefault(name, text)
    return collected


def _texts(file: BinaryIO, path: str | Path) -> Iterator[tuple[str, str]]:
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(12)
    if size > MAX_FILE:
        raise ImageFileError(f"'{printable_path(path)}' has {size:,} bytes; at most {MAX_FILE:,} are read.")
    if head.startswith(_PNG):
        return _png(file)
    if head.startswith(_JPEG):
        return _jpeg(file)
    if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        return _webp(file)
    raise ImageFileError(f"'{printable_path(path)}' is not a PNG, JPEG or WebP file.")


def _png(file: BinaryIO) -> Iterator[tuple[str, str]]:
    file.seek(8)
    for _ in range(MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8 or header[4:] == b"IEND":
            return
        size, kind = struct.unpack(">I4s", header)
        if kind not in _PNG_TEXTS or size > MAX_TEXT + 200:
            file.seek(size + 4, 1)
            continue
        data, check = file.read(size), file.read(4)
        if check == struct.pack(">I", zlib.crc32(kind + data)):
            yield from read_exif(data).items() if kind == b"eXIf" else _png_text(kind, data)


def _png_text(kind: bytes, data: bytes) -> Iterator[tuple[str, str]]:
    """Yields keyword and text of a tEXt, zTXt or iTXt chunk (PNG specification, 11.3.3)."""
    keyword, separator, rest = data.partition(b"\0")
    is_compressed = kind == b"zTXt"
    if kind == b"iTXt":
        is_compressed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # after language and translated keyword
    elif is_compressed:
        rest = rest[1:]
    if separator:
        yield keyword.decode("latin-1"), _decode(_inflate(rest) if is_compressed else rest)


def _inflate(data: bytes) -> bytes:
    """Decompresses at most MAX_TEXT + 1 bytes, so that a zip bomb cannot fill the memory."""
    try:
        return zlib.decompressobj().decompress(data, MAX_TEXT + 1)
    except zlib.error:
        return b""


def _decode(data: bytes) -> str:
    """Decodes UTF-8, which some programs write into tEXt against the standard, else latin-1."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _jpeg(file: BinaryIO) -> Iterator[tuple[str, str]]:
    file.seek(2)
    for _ in range(MAX_CHUNKS):
        header = file.read(4)
        if len(header) < 4 or header[0] != 0xFF or header[1] in (0xD9, 0xDA):  # end of image, or start of scan
            return
        if header[1] == 0xFF:  # fill byte
            file.seek(-3, 1)
            continue
        data = file.read(max(struct.unpack(">H", header[2:])[0] - 2, 0))
        if header[1] == 0xE1 and data.startswith(_EXIF_HEADER):
            yield from read_exif(data).items()
        elif header[1] == 0xE1 and data.startswith(_XMP_HEADER):
            yield XMP, _decode(data.removeprefix(_XMP_HEADER))
        elif header[1] == 0xFE:
            yield "comment", _decode(data.rstrip(b"\0"))


def _webp(file: BinaryIO) -> Iterator[tuple[str, str]]:
    file.seek(12)
    for _ in range(MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            return
        kind, size = struct.unpack("<4sI", header)
        if kind not in (b"EXIF", b"XMP ") or size > MAX_TEXT + 200:
            file.seek(size + size % 2, 1)
            continue
        data = file.read(size + size % 2)[:size]
        if kind == b"EXIF":
            yield from read_exif(data).items()
        else:
            yield XMP, _decode(data)
