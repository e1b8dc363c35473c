"""Reads clipgen's record: the text `clipgen` of a PNG, clipgen:record in the XMP of a JPEG or WebP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipgen.errors import ImageFileError
from clipgen.image_file.chunks import XMP
from clipgen.image_file.record import SCHEMA
from clipgen.image_file.restored import ParsedMetadata, text_of
from clipgen.image_file.strict_json import parse_object
from clipgen.image_file.xmp import read_record
from clipgen.settings.checks import printable
from clipgen.settings.settings import FIELDS, Note

SCHEMAS = "clipgen/"
_MODEL = ("name", "hash", "family")
_MAY_BE_NONE: dict[str, type] = {"seed": int, "job": str, "clip": dict}
_MAY_BE_EMPTY: dict[str, type] = {"model": dict, "runtime": dict, "inputs": dict, "warnings": list}


def read_png(chunks: Mapping[str, str]) -> ParsedMetadata | None:
    """Reads the record of a PNG. Raises ImageFileError if it is damaged."""
    return from_record(parse_object(chunks["clipgen"])) if "clipgen" in chunks else None


def read_xmp(chunks: Mapping[str, str]) -> ParsedMetadata | None:
    """Reads the record in the XMP. Raises ImageFileError if it is damaged."""
    text = read_record(chunks[XMP]) if XMP in chunks else None
    return from_record(parse_object(text)) if text is not None else None


def from_record(record: dict[str, Any]) -> ParsedMetadata:
    """Returns the settings in a record; fields of later versions are kept as unknown. Raises ImageFileError."""
    schema, settings = record.get("schema"), record.get("settings")
    if not isinstance(schema, str) or not schema.startswith(SCHEMAS) or not isinstance(settings, dict):
        raise ImageFileError("a clipgen record without schema and settings")
    fields = {name: value for name, value in settings.items() if name in FIELDS}
    unknown = {name: value for name, value in settings.items() if name not in FIELDS}
    notes = []
    if unknown or schema != SCHEMA:
        message = f"Written by another clipgen ({printable(schema)}); settings not known here: {len(unknown)}."
        notes.append(Note("newer-record", None, message))
    if record.get("seed") is not None:
        fields["seed"] = record["seed"]
    return ParsedMetadata("clipgen", fields, unknown=unknown, notes=notes, record=_complete(record))


def _complete(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record that has every section with the right type, whatever the file contained."""
    complete = dict(record)
    for name, kind in {**_MAY_BE_NONE, **_MAY_BE_EMPTY}.items():
        if not isinstance(record.get(name), kind):
            complete[name] = kind() if name in _MAY_BE_EMPTY else None
    model = complete["model"]
    return {**complete, "model": {**model, **{name: text_of(model.get(name)) or None for name in _MODEL}}}
