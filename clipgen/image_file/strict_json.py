"""Parses untrusted JSON with limits on size, depth and numbers."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from clipgen.errors import ImageFileError

MAX_TEXT = 2**20  # characters of one text
MAX_DEPTH = 64
MAX_DIGITS = 20
# An unterminated string matches up to the end of the text, so that each character is scanned once.
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def parse_json(text: str, *, nan_is_none: bool = False) -> Any:
    """Parses JSON of at most 1 MiB and 64 levels, with integers of at most 20 digits and finite floats.

    NaN and infinities raise ImageFileError too, or become None with `nan_is_none`.
    """
    if len(text) > MAX_TEXT:
        raise ImageFileError(f"JSON of {len(text):,} characters; at most {MAX_TEXT:,} are read")
    if depth_of(text) > MAX_DEPTH:
        raise ImageFileError(f"JSON nested deeper than {MAX_DEPTH} levels")
    try:
        parse_constant = _none if nan_is_none else _reject
        value = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=parse_constant)
        json.dumps(value, ensure_ascii=False).encode()  # lone surrogates cannot be printed or stored
    except ValueError as error:
        raise ImageFileError(f"broken JSON ({error})") from None
    return value


def parse_object(text: str, *, nan_is_none: bool = False) -> dict[str, Any]:
    """Parses a JSON object within the same limits; raises ImageFileError for any other JSON."""
    value = parse_json(text, nan_is_none=nan_is_none)
    if not isinstance(value, dict):
        raise ImageFileError("JSON that is not an object")
    return value


def depth_of(text: str) -> int:
    """Returns the deepest nesting of brackets outside strings, without parsing."""
    depth = deepest = 0
    for token in _TOKENS.finditer(text):
        first = text[token.start()]
        depth += (first in "[{") - (first in "]}")
        deepest = max(deepest, depth)
    return deepest


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"an integer of more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number that is not finite")
    return value


def _none(constant: str) -> None:
    return None


def _reject(constant: str) -> NoReturn:
    raise ValueError(f"the number {constant}")
