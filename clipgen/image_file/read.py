"""Reads settings from an image of any supported app: texts are tried in a fixed order until one has a prompt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from clipgen.errors import ImageFileError
from clipgen.image_file import read_a1111, read_clipgen, read_comfyui, read_fooocus, read_invokeai
from clipgen.image_file.chunks import read_chunks
from clipgen.image_file.paths import printable_path
from clipgen.image_file.restored import ParsedMetadata, RestoredSettings, has_prompt, restore
from clipgen.image_file.strict_json import MAX_TEXT, parse_object
from clipgen.settings.checks import printable
from clipgen.settings.settings import Note

Reader = Callable[[], ParsedMetadata | None]
SIDECARS = (".json", ".txt")
_BLOCKS = ("parameters", "exif:UserComment", "exif:IFD0:UserComment")
_COMFYUI_TAGS = ("exif:Model", "exif:Make")
_COMFYUI_MARK = "prompt:"


def read_settings(path: str | Path) -> RestoredSettings:
    """Returns the settings in an image, or in a `.json` or `.txt` file of the same name; these can be given directly.

    Raises ImageFileError for a file that cannot be read, is not an image, or contains no prompt of a known app.
    """
    path = Path(path)
    if path.suffix.lower() in SIDECARS:
        return settings_from_text(_read_text(path), name=path.name)
    chunks = read_chunks(path)
    return _first(_readers(chunks, path), chunks, path.name)


def settings_from_text(text: str, *, name: str = "the text") -> RestoredSettings:
    """Returns the settings in a text: an A1111 block, a clipgen record, or JSON of InvokeAI, Fooocus or ComfyUI.

    Raises ImageFileError.
    """
    text = text.encode(errors="replace").decode()  # bytes that are not UTF-8 arrive from a terminal as lone surrogates
    return _first(iter([("text", partial(_from_text, text))]), {"text": text}, name)


def _readers(chunks: Mapping[str, str], path: Path) -> Iterator[tuple[str, Reader]]:
    """Yields the name of each text and its reader, the most reliable first."""
    yield "clipgen", partial(read_clipgen.read_png, chunks)
    yield "XMP", partial(read_clipgen.read_xmp, chunks)
    if read_invokeai.KEYWORD in chunks:
        yield read_invokeai.KEYWORD, partial(_from_text, chunks[read_invokeai.KEYWORD])
    if "parameters" in chunks:
        yield "parameters", partial(_from_text, chunks["parameters"])
    if "prompt" in chunks:
        yield "prompt", partial(_comfyui, chunks["prompt"])
    for name in _BLOCKS[1:]:
        if name in chunks:
            yield name, partial(_from_text, chunks[name])
    for name in _COMFYUI_TAGS:
        if chunks.get(name, "").startswith(_COMFYUI_MARK):
            yield name, partial(_comfyui, chunks[name].removeprefix(_COMFYUI_MARK))
    for suffix in SIDECARS:
        if os.path.isfile(sidecar := path.with_suffix(suffix)):
            yield sidecar.name, partial(_from_file, sidecar)


def _first(readers: Iterator[tuple[str, Reader]], raw: Mapping[str, str], name: str) -> RestoredSettings:
    """Runs the readers until one finds a prompt; unreadable texts become warnings. Raises ImageFileError."""
    unreadable: list[Note] = []
    for location, reader in readers:
        try:
            metadata = reader()
        except ImageFileError as error:
            unreadable.append(
                Note("text-unreadable", None, f"The text '{printable(location)}' is not readable: {error}.")
            )
            continue
        if metadata is not None and has_prompt(metadata):
            metadata.notes[:0] = unreadable
            return restore(metadata, raw)
    raise ImageFileError(_no_settings(name, raw, unreadable))


def _no_settings(name: str, raw: Mapping[str, str], unreadable: list[Note]) -> str:
    """Returns the error message for a file without settings: its first unreadable text, or the texts it contains."""
    if unreadable:
        return f"No settings in '{printable_path(name)}': {unreadable[0].message}"
    texts = ", ".join(f"'{printable(key)}'" for key in list(raw)[:5])
    contents = f"its texts: {texts}" if texts else "it contains no text"
    return f"No settings of a known app in '{printable_path(name)}'; {contents}."


def _from_text(text: str) -> ParsedMetadata | None:
    """Reads JSON by its keys, and any other text as an A1111 block."""
    if not text.lstrip().startswith("{"):
        return read_a1111.read(text)
    document = parse_object(text, nan_is_none=True)
    if str(document.get("schema", "")).startswith(read_clipgen.SCHEMAS):
        return read_clipgen.from_record(parse_object(text))
    if "positive_prompt" in document:
        return read_invokeai.read(document)
    return read_fooocus.read(document) or read_comfyui.read(document)


def _comfyui(text: str) -> ParsedMetadata | None:
    return read_comfyui.read(parse_object(text, nan_is_none=True))  # ComfyUI itself writes NaN


def _from_file(path: Path) -> ParsedMetadata | None:
    return _from_text(_read_text(path))


def _read_text(path: Path) -> str:
    """Reads a text file of at most 1 MiB, with or without a byte order mark. Raises ImageFileError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageFileError(f"Cannot read '{printable_path(path)}': {reason}.") from None
    if len(data) > MAX_TEXT:
        raise ImageFileError(f"'{printable_path(path)}' is larger than {MAX_TEXT:,} bytes.")
    return data.decode("utf-8-sig", "replace")
