"""Encodes images as PNG, JPEG or WebP in memory, with the settings inside."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from clipgen.image_file.a1111_block import parameters_block
from clipgen.image_file.exif import build_exif
from clipgen.image_file.record import to_json
from clipgen.image_file.xmp import build_xmp
from clipgen.settings.settings import Note

if TYPE_CHECKING:
    from PIL.Image import Image

Format = Literal["png", "jpeg", "webp"]
SUFFIXES: dict[Format, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
JPEG_SEGMENT = 65_502  # bytes of XMP or EXIF that one JPEG segment holds


def encode_image(
    image: Image, record: Mapping[str, Any], *, format: Format, quality: int = 92, metadata: bool = True
) -> bytes:
    """Returns the encoded image with its A1111 block, its record and the XMP mark for generated images.

    Without `metadata`, only the XMP mark and the program's name are written. `quality` is 1 to 100, for JPEG and WebP.
    """
    if format == "png":
        return _encode_png(image, record, metadata)
    return _encode_lossy(image, record, format, quality, metadata)


def fit_record(record: Mapping[str, Any], format: Format) -> tuple[dict[str, Any] | None, list[Note]]:
    """Returns the part of a record that fits into a format, and notes; the curve is left out first, then all of it."""
    if _fits(record, format):
        return dict(record), []
    without_curve = {**record, "clip": {**(record["clip"] or {}), "curve": None}}
    if _fits(without_curve, format):
        note = Note("curve-left-out", None, "The CLIP curve does not fit into a JPEG; PNG and WebP keep it.")
        return without_curve, [note]
    return None, [Note("record-left-out", None, "The settings record does not fit into a JPEG; PNG and WebP keep it.")]


def _fits(record: Mapping[str, Any], format: Format) -> bool:
    return format != "jpeg" or len(_xmp(record, to_json(record)).encode()) <= JPEG_SEGMENT


def _encode_png(image: Image, record: Mapping[str, Any], metadata: bool) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    if metadata:
        chunks.add_text("parameters", parameters_block(record))  # tEXt if latin-1 holds it, else iTXt
        chunks.add_itxt("clipgen", to_json(record))
    chunks.add_itxt("XML:com.adobe.xmp", _xmp(record, None))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def _encode_lossy(image: Image, record: Mapping[str, Any], format: Format, quality: int, metadata: bool) -> bytes:
    stored, _ = fit_record(record, format) if metadata else (None, [])
    exif = b"Exif\0\0" + build_exif(_tool(record), parameters_block(record) if metadata else None)
    xmp = _xmp(record, to_json(stored) if stored else None).encode()
    buffer = io.BytesIO()
    sampling: dict[str, Any] = {"subsampling": "4:4:4"} if format == "jpeg" else {}
    image.save(buffer, format.upper(), quality=quality, exif=exif, xmp=xmp, **sampling)
    return buffer.getvalue()


def _xmp(record: Mapping[str, Any], text: str | None) -> str:
    return build_xmp(_tool(record), composite="vary" in record["inputs"], record=text)


def _tool(record: Mapping[str, Any]) -> str:
    return f"clipgen {record['runtime']['clipgen']}"
