"""Settings out of a picture, whichever app drew it: the texts in a fixed order, the first with a prompt wins."""

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
    """Reads the settings inside a picture, or of the `.json` or `.txt` beside it; a `.json` or `.txt` is read itself.

    Raises ImageFileError for a file that cannot be read, is no picture, or carries no prompt of a known app.
    """
    path = Path(path)
    if path.suffix.lower() in SIDECARS:
        return settings_from_text(_read_text(path), name=path.name)
    chunks = read_chunks(path)
    return _first(_readers(chunks, path), chunks, path.name)


def settings_from_text(text: str, *, name: str = "the text") -> RestoredSettings:
    """Reads the settings of a pasted text: an A1111 block, a clipgen record, InvokeAI's, Fooocus' or ComfyUI's JSON.

    Raises ImageFileError.
    """
    text = text.encode(errors="replace").decode()  # bytes of a terminal that were no UTF-8 arrive as lone surrogates
    return _first(iter([("text", partial(_from_text, text))]), {"text": text}, name)


def _readers(chunks: Mapping[str, str], path: Path) -> Iterator[tuple[str, Reader]]:
    """Yields where to look and how, the surest first; a reader runs only if those before it found nothing."""
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
        if os.path.isfile(beside := path.with_suffix(suffix)):
            yield beside.name, partial(_from_file, beside)


def _first(readers: Iterator[tuple[str, Reader]], raw: Mapping[str, str], name: str) -> RestoredSettings:
    """Runs the readers until one finds a prompt; what was broken on the way is told. Raises ImageFileError."""
    broken: list[Note] = []
    for place, reader in readers:
        try:
            found = reader()
        except ImageFileError as error:
            broken.append(Note("text-unreadable", None, f"The text '{printable(place)}' is not readable: {error}."))
            continue
        if found is not None and has_prompt(found):
            found.notes[:0] = broken
            return restore(found, raw)
    raise ImageFileError(_nothing(name, raw, broken))


def _nothing(name: str, raw: Mapping[str, str], broken: list[Note]) -> str:
    """Says why a file gave no settings: what was broken, else which texts it holds, else that it has none."""
    if broken:
        return f"No settings in '{printable_path(name)}': {broken[0].message}"
    texts = ", ".join(f"'{printable(key)}'" for key in list(raw)[:5])
    held = f"its texts: {texts}" if texts else "it holds no text"
    return f"No settings of a known app in '{printable_path(name)}'; {held}."


def _from_text(text: str) -> ParsedMetadata | None:
    """Reads a text by what it looks like: JSON by its keys, anything else as an A1111 block."""
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
