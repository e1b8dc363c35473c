"""What each Settings field accepts at each door, and the one line that says so when a value does not fit."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clipgen.errors import SettingsError
from clipgen.schedulers import SCHEDULERS, find_scheduler

MAX_SEED = 2**63 - 1
CHOICES: dict[str, tuple[str, ...]] = {"prompt_syntax": ("a1111", "plain"), "long_prompt": ("cut", "error")}
FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # controls but newline and tab; surrogates
PRESET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Limits:
    """What one door accepts: (least, most) of the numbers, and the most characters, pixels and work.

    `pixels` bounds width x height, `work` bounds width x height x steps x images; None = no limit.
    """

    characters: int = 2_000
    steps: tuple[int, int] = (1, 150)
    images: tuple[int, int] = (1, 1_000)
    side: tuple[int, int] = (64, 2048)
    pixels: int = 4_194_304
    work: int | None = None
    guidance_scale: tuple[float, float] = (0, 50)


LOCAL = Limits()
SERVED = Limits(images=(1, 8), pixels=1_048_576, work=419_430_400)


def shown(value: object) -> str:
    """Returns a value as one short printable line for an error message, whatever it is."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length():,} bits"
    text = str(value[:SHOWN_CHARACTERS] if isinstance(value, str) else value) if _is_plain(value) else _kind(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:SHOWN_CHARACTERS])


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | numbers.Real)


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


Check = Callable[[str, Any, Limits], Any]


def _refused(name: str, rule: str, value: object, allowed: tuple[str, ...] | None = None) -> SettingsError:
    return SettingsError(f"{name} must be {rule}, got '{shown(value)}'", field=name, allowed=allowed)


def _text(name: str, value: Any, limits: Limits) -> str:
    if not isinstance(value, str):
        raise _refused(name, "text", value)
    text = value.replace("\r\n", "\n")
    if len(text) > limits.characters:
        raise SettingsError(f"{name} must be at most {limits.characters:,} characters, got {len(text):,}", field=name)
    if bad := FORBIDDEN.search(text):
        raise _refused(name, f"text without control characters or broken UTF-8 (character {bad.start() + 1})", bad[0])
    return text


def _filled(name: str, value: Any, limits: Limits) -> str:
    if not (text := _text(name, value, limits)).strip():
        raise SettingsError(f"{name} must not be empty", field=name)
    return text


def _line(name: str, value: Any, limits: Limits) -> str:
    text = _filled(name, value, limits)
    if "\n" in text or "\t" in text or text != text.strip():
        raise _refused(name, "one word or path, without line breaks", value)
    return text


def _preset(name: str, value: Any, limits: Limits) -> str:
    if not isinstance(value, str) or not PRESET_NAME.fullmatch(value):
        raise _refused(name, "a preset name (a-z, 0-9, - and _, at most 64)", value)
    return value


def _scheduler(name: str, value: Any, limits: Limits) -> str:
    return find_scheduler(_line(name, value, limits)).name


def _choice(name: str, value: Any, limits: Limits) -> str:
    if not isinstance(value, str) or value not in CHOICES[name]:
        raise _refused(name, " or ".join(CHOICES[name]), value, CHOICES[name])
    return value


def _as_int(value: Any) -> int | None:
    """Returns an int, or an integral float below 2^53, as an int; None for anything else, bool included."""
    if not _is_number(value):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    return int(value) if abs(value) < 2**53 and value == math.floor(value) else None


def _whole(bounds: Callable[[Limits], tuple[int, int]], rule: str = "{} to {}", multiple: int = 1) -> Check:
    def check(name: str, value: Any, limits: Limits) -> int:
        low, high = bounds(limits)
        number = _as_int(value)
        if number is None or not low <= number <= high or number % multiple:
            raise _refused(name, rule.format(low, high), value)
        return number

    return check


def _real(bounds: Callable[[Limits], tuple[float, float]]) -> Check:
    def check(name: str, value: Any, limits: Limits) -> float:
        low, high = bounds(limits)
        if not _is_number(value) or not low <= value <= high:
            raise _refused(name, f"{low:g} to {high:g}", value)
        return float(value) + 0.0  # -0.0 becomes 0.0

    return check


def _or_none(check: Check) -> Check:
    return lambda name, value, limits: None if value is None else check(name, value, limits)


_SIDE = _whole(lambda limits: limits.side, "{} to {} and a multiple of 8", multiple=8)
_UNIT = _real(lambda limits: (0.0, 1.0))
CHECKS: dict[str, Check] = {
    "prompt": _filled,
    "negative_prompt": _text,
    "prompt_syntax": _choice,
    "long_prompt": _choice,
    "prompt_template": _or_none(_filled),
    "model": _line,
    "preset": _or_none(_preset),
    "seed": _or_none(_whole(lambda limits: (0, MAX_SEED), "random or {} to {}")),
    "images": _whole(lambda limits: limits.images),
    "steps": _or_none(_whole(lambda limits: limits.steps)),
    "width": _or_none(_SIDE),
    "height": _or_none(_SIDE),
    "scheduler": _or_none(_scheduler),
    "guidance_scale": _or_none(_real(lambda limits: limits.guidance_scale)),
    "eta": _or_none(_UNIT),
    "cfg_start": _UNIT,
    "cfg_stop": _UNIT,
    "guidance_rescale": _UNIT,
}


def check_all(raw: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Returns every field's value in its own type, the fields held against each other too; raises SettingsError."""
    values = {name: CHECKS[name](name, value, limits) for name, value in raw.items()}
    _check_interval(values)
    _check_scheduler_steps(values)
    _check_size(values, limits)
    return values


def _check_interval(values: Mapping[str, Any]) -> None:
    start, stop = values["cfg_start"], values["cfg_stop"]
    if start >= stop:
        raise SettingsError(f"cfg_start must be below cfg_stop ({stop:g}), got '{start:g}'", field="cfg_start")


def _check_scheduler_steps(values: Mapping[str, Any]) -> None:
    steps, name = values["steps"], values["scheduler"]
    if steps and name and steps > (most := SCHEDULERS[name].max_steps):
        raise SettingsError(f"steps must be 1 to {most} with scheduler {name}, got '{steps}'", field="steps")


def _check_size(values: Mapping[str, Any], limits: Limits) -> None:
    width, height, steps, images = (values[name] for name in ("width", "height", "steps", "images"))
    pixels = (width or 0) * (height or 0)
    if pixels > limits.pixels:
        raise SettingsError(f"width x height must be at most {limits.pixels:,}, got '{pixels:,}'", field="width")
    work = pixels * (steps or 0) * images
    if limits.work is not None and work > limits.work:
        raise SettingsError(f"width x height x steps x images must be at most {limits.work:,}, got '{work:,}'")
