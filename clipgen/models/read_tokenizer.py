"""Reads a tokenizer of the transformers library; a broken one is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipgen.errors import ModelError


def read_tokenizer(reader: Any, folder: Path, what: str) -> Any:
    """Returns what a tokenizer class reads in a folder, never asking the hub; raises ModelError, named by `what`."""
    try:
        return reader.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing narrower for a broken file
        raise ModelError(f"{what} cannot be read: {(str(error).splitlines() or [''])[0][:160]}") from error
