"""The checks of Settings fields: the valid values of each, and the combinations that exclude each other."""

from __future__ import annotations

import difflib
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clipgen.errors import SettingsError
from clipgen.sampling.schedulers import SCHEDULERS, find_scheduler

MAX_SEED = 2**63 - 1
MAX_DRAWN_SEED = 2**32 - 1  # the largest random seed, which other apps accept too
FORBIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]"
)  # control characters except newline and tab; surrogates
PRESET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
ADAPTER_PATH = re.compile(r"[/\\]|\.(safetensors|bin|pt|pth|ckpt|pkl|msgpack|h5)$", re.IGNORECASE)
METHODS = ("off", "clip", "pick", "steer", "optimise", "clip+pick")  # the guidance methods and their valid combinations
DECODERS = ("auto", "tiny", "pooled", "linear", "latent", "full")
GUARDS = ("off", "survival", "two-key")
CANDIDATES = (2, 4, 8, 16)
MAX_TARGETS = 8
NO_UNION = {
    "pick+steer": "both select which images continue",
    "clip+steer": "the gradient would have to enter the weights of the particles",
}
COPIES = {
    "pick": "candidates",
    "steer": "particles",
    "optimise": "iterations",
}  # the field that multiplies the work of a method


@dataclass(frozen=True)
class Limits:
    """What one interface accepts: (minimum, maximum) of each number, and maxima of characters, pixels and work.

    `pixels` bounds width x height, `work` bounds width x height x steps x images x the factor of the guidance method;
    None = no limit. `files` = fields may name files of this machine.
    """

    characters: int = 2_000
    seed: tuple[int, int] = (0, MAX_SEED)
    images: tuple[int, int] = (1, 1_000)
    steps: tuple[int, int] = (1, 150)
    side: tuple[int, int] = (64, 2048)
    pixels: int = 4_194_304
    work: int | None = None
    guidance_scale: tuple[float, float] = (0, 50)
    part: tuple[float, float] = (0, 1)
    budget: tuple[float, float] = (1, 64)
    cutouts: tuple[int, int] = (1, 64)
    guidance_every: tuple[int, int] = (1, 4)
    particles: tuple[int, int] = (2, 16)
    iterations: tuple[int, int] = (1, 200)
    target: tuple[float, float] = (-2, 2)
    lora: tuple[float, float] = (-4, 4)
    clip_skip: tuple[int, int] = (0, 11)
    files: bool = True


LOCAL = Limits()
SERVED = Limits(images=(1, 8), pixels=1_048_576, work=419_430_400, cutouts=(1, 16), files=False)


def printable(value: object) -> str:
    """Returns a value as one short printable line for an error message."""
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > 256:  # str() refuses integers over 4,300 digits
        return f"a number of {value.bit_length():,} bits"
    text = (value if isinstance(value, str) else str(value))[:60]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Returns the error message for an unknown name, with the nearest known name, or else all known names."""
    near = difflib.get_close_matches(printable(name), known := tuple(known), n=1)
    return f"Unknown {kind} '{printable(name)}'. " + (
        f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
    )


Check = Callable[[str, Any, Limits], Any]  # (field name, raw value, limits) -> the value in its own type


def _refused(name: str, rule: str, value: object, allowed: tuple[str, ...] | None = None) -> SettingsError:
    return SettingsError(f"{name} must be {rule}, got '{printable(value)}'", field=name, allowed=allowed)


def check_text(name: str, value: Any, limits: Limits) -> str:
    """Checks a text of limited length; returns it with newlines as line ends."""
    if not isinstance(value, str):
        raise _refused(name, "text", value)
    if (length := len(value) - value.count("\r\n")) > limits.characters:  # before a copy is made
        raise SettingsError(f"{name} must be at most {limits.characters:,} characters, got {length:,}", field=name)
    text = value.replace("\r\n", "\n")
    if bad := FORBIDDEN.search(text):
        raise _refused(name, f"valid UTF-8 without control characters (character {bad.start() + 1})", bad[0])
    return text


def check_filled(name: str, value: Any, limits: Limits) -> str:
    """Checks a text that must not be blank."""
    if not (text := check_text(name, value, limits)).strip():
        raise SettingsError(f"{name} must not be empty", field=name)
    return text


def check_line(name: str, value: Any, limits: Limits = LOCAL) -> str:
    """Checks a text of one line without spaces around it; raises SettingsError."""
    text = check_filled(name, value, limits)
    if "\n" in text or "\t" in text or text != text.strip():
        raise _refused(name, "one line without spaces around it", value)
    return text


def check_preset(name: str, value: Any, limits: Limits) -> str:
    """Checks the name of a preset."""
    if not isinstance(value, str) or not PRESET_NAME.fullmatch(value):
        raise _refused(name, "a preset name (a-z, 0-9, - and _, at most 64)", value)
    return value


def check_scheduler(name: str, value: Any, limits: Limits) -> str:
    """Checks the name of a scheduler in any app and returns clipgen's own name for it."""
    return find_scheduler(check_line(name, value, limits)).name


def one_of(*choices: str) -> Check:
    """Returns the check of a field with a few valid words."""

    def check(name: str, value: Any, limits: Limits) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _refused(name, " or ".join(choices), value, choices)
        return value

    return check


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    """Returns whether a value is an int, or an integral float below 2^53, where floats are exact."""
    return isinstance(value, numbers.Integral) or (abs(value) < 2**53 and value == int(value))


def whole(limit: str, rule: str = "{} to {}", multiple: int = 1) -> Check:
    """Returns the check of a whole number in the range `limits.<limit>`; `rule` describes it in errors."""

    def check(name: str, value: Any, limits: Limits) -> int:
        low, high = getattr(limits, limit)
        if not (_is_number(value) and low <= value <= high and _is_whole(value) and int(value) % multiple == 0):
            raise _refused(name, rule.format(low, high), value)
        return int(value)

    return check


def real(limit: str) -> Check:
    """Returns the check of a number in the range `limits.<limit>`."""

    def check(name: str, value: Any, limits: Limits) -> float:
        low, high = getattr(limits, limit)
        if not (_is_number(value) and low <= value <= high):
            raise _refused(name, f"{low:g} to {high:g}", value)
        return float(value) + 0.0  # -0.0 becomes 0.0

    return check


def check_switch(name: str, value: Any, limits: Limits) -> bool:
    """Checks a boolean."""
    if not isinstance(value, bool):
        raise _refused(name, "true or false", value)
    return value


def check_guidance(name: str, value: Any, limits: Limits) -> str:
    """Checks a guidance method or a combination of two; returns the names sorted."""
    joined = "+".join(sorted(part.strip() for part in value.split("+"))) if isinstance(value, str) else value
    if not isinstance(joined, str) or joined not in METHODS:
        why = NO_UNION.get(joined) if isinstance(joined, str) else None
        if isinstance(joined, str) and "optimise" in joined.split("+"):
            why = "optimise runs its own sampling loop"
        raise _refused(name, ", ".join(METHODS) + (f" ({why})" if why else ""), value, METHODS)
    return joined


def check_budget(name: str, value: Any, limits: Limits) -> float:
    """Checks the cost of an image as a multiple of an unguided one, written as 1.5 or 1.5x."""
    number = parse_number(value.removesuffix("x")) if isinstance(value, str) else value
    return float(real("budget")(name, number, limits))


def check_candidates(name: str, value: Any, limits: Limits) -> int:
    """Checks the number of candidates that `pick` starts with."""
    if not (_is_number(value) and value in CANDIDATES):
        raise _refused(name, "2, 4, 8 or 16", value)
    return int(value)


def split_target(target: str) -> tuple[str, float]:
    """Splits a target into its name and its weight: `snow:-0.5` -> ("snow", -0.5); the default weight is 1."""
    words, colon, weight = target.rpartition(":")
    number = parse_number(weight.strip()) if colon else None
    return (words.strip(), float(number)) if isinstance(number, int | float) else (target.strip(), 1.0)


def names_path(adapter: str) -> bool:
    """Tells whether a LoRA or an embedding is named by the path of its file, not by its name in a folder."""
    return ADAPTER_PATH.search(adapter) is not None


def weighted(limit: str) -> Check:
    """Returns the check of a list of `text:weight`, which returns each with its weight in `limits.<limit>`."""

    def check(name: str, value: Any, limits: Limits) -> tuple[str, ...]:
        checked = []
        for target in check_lines(name, value, limits):
            words, weight = split_target(target)
            if not words:
                raise SettingsError(
                    f"{name} must have a name or text before its weight, got '{printable(target)}'", field=name
                )
            checked.append(f"{words}:{real(limit)(name, weight, limits):g}")
        return tuple(checked)

    return check


def check_source(name: str, value: Any, limits: Limits) -> str:
    """Checks `file:weight` with a weight from 0 to 1; returns it with its weight, by default 1."""
    if not limits.files:
        raise SettingsError(f"{name} names a file, which only the terminal and Python accept", field=name)
    picture, weight = split_target(check_line(name, value, limits))
    if not picture:
        raise SettingsError(f"{name} must name a picture before its weight, got '{printable(value)}'", field=name)
    return f"{picture}:{real('part')(name, weight, limits):g}"


def check_lines(name: str, value: Any, limits: Limits) -> tuple[str, ...]:
    """Checks a list of texts of one line each."""
    if isinstance(value, str) or not isinstance(value, Iterable) or len(lines := tuple(value)) > MAX_TARGETS:
        raise _refused(name, f"a list of at most {MAX_TARGETS} texts", value)
    return tuple(check_line(name, line, limits) for line in lines)


check_targets = weighted("target")
check_loras = weighted("lora")
WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin")


def is_weight_file(name: str) -> bool:
    """Tells whether the name of a model is that of a single file of weights; pickles are refused later."""
    return name.lower().endswith(WEIGHT_SUFFIXES)


check_side = whole("side", "{} to {} and a multiple of 8", multiple=8)
check_part = real("part")


def parse_number(text: str) -> int | float | str:
    """Returns the number in a text, or the text itself, which the check then refuses and quotes."""
    for parse in (int, float):
        try:
            return parse(text)
        except ValueError:
            continue
    return text


def check_together(values: Mapping[str, Any], limits: Limits) -> None:
    """Checks the combinations of fields; raises SettingsError."""
    start, stop, steps, scheduler = (values[name] for name in ("cfg_start", "cfg_stop", "steps", "scheduler"))
    if start >= stop:
        raise SettingsError(f"cfg_start must be below cfg_stop ({stop:g}), got '{start:g}'", field="cfg_start")
    if values["guidance_start"] >= values["guidance_stop"]:
        raise _refused("guidance_start", f"below guidance_stop ({values['guidance_stop']:g})", values["guidance_start"])
    if steps and scheduler and steps > (most := SCHEDULERS[scheduler].max_steps):
        raise _refused("steps", f"1 to {most} with scheduler {scheduler}", steps)
    _check_methods(values["guidance"], values["guard"], values["budget"])
    _check_size(values, limits)


def _check_methods(guidance: str, guard: str, budget: float | None) -> None:
    if budget is not None and guidance != "off":
        raise _refused("budget", "left out if guidance is chosen by name", f"{budget:g}")
    if guidance == "optimise" and guard != "survival":
        raise _refused("guard", "survival with guidance optimise", guard)
    if guard == "two-key" and guidance in ("pick", "steer"):
        raise _refused("guard", f"off or survival with guidance {guidance}, which has no gradient to veto", guard)


def _check_size(values: Mapping[str, Any], limits: Limits) -> None:
    pixels = (values["width"] or 0) * (values["height"] or 0)
    copies = {name: values[name] for method, name in COPIES.items() if method in values["guidance"].split("+")}
    copies |= {"budget": values["budget"]} if values["budget"] else {}
    work = pixels * (values["steps"] or 0) * values["images"] * next(iter(copies.values()), 1)
    for what, amount, most in (
        ("width x height", pixels, limits.pixels),
        (" x ".join(("width x height x steps x images", *copies)), work, limits.work),
    ):
        if most is not None and amount > most:
            raise SettingsError(f"{what} must be at most {most:,}, got '{amount:,.0f}'", field="width")
