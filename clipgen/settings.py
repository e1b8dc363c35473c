"""Settings: every knob of one generation, its default and its limits; the only home of defaults."""

from __future__ import annotations

import dataclasses
import difflib
import numbers
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from clipgen.errors import SettingsError
from clipgen.schedulers import SCHEDULERS, find_scheduler

MAX_SEED = 2**63 - 1
MAX_DRAWN_SEED = 2**32 - 1  # a seed nobody chose stays below this, so that other apps can take it
FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # controls but newline and tab; surrogates
PRESET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
METHODS = ("off", "clip", "pick", "clip+pick")  # of guidance/, alone or together
DECODERS = ("auto", "tiny", "pooled", "linear", "latent", "full")
GUARDS = ("off", "survival", "two-key")
CANDIDATES = (2, 4, 8, 16)
MAX_TARGETS = 8


@dataclass(frozen=True)
class Limits:
    """What one door accepts: (least, most) of each number, and the most characters, pixels and work.

    `pixels` bounds width x height, `work` bounds width x height x steps x images; None = no limit.
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
    cutouts: tuple[int, int] = (1, 64)
    guidance_every: tuple[int, int] = (1, 4)
    target: tuple[float, float] = (-2, 2)


LOCAL = Limits()
SERVED = Limits(images=(1, 8), pixels=1_048_576, work=419_430_400, cutouts=(1, 16))


@dataclass(frozen=True)
class Note:
    """One warning for people: a kebab-case code, the Settings field it is about, one line."""

    code: str
    field: str | None
    message: str

    def to_dict(self) -> dict[str, str | None]:
        """Returns code, field and message, as the record and the JSON events carry them."""
        return dataclasses.asdict(self)


def shown(value: object) -> str:
    """Returns any value as one short printable line for an error message."""
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > 256:  # str() refuses integers over 4,300 digits
        return f"a number of {value.bit_length():,} bits"
    text = (value if isinstance(value, str) else str(value))[:60]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Returns the line for an unknown key: what is wrong, and the nearest known name, else all of them."""
    near = difflib.get_close_matches(shown(name), known := tuple(known), n=1)
    return f"Unknown {kind} '{shown(name)}'. " + (f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}.")


Check = Callable[[str, Any, Limits], Any]  # (field name, raw value, limits) -> the value in its own type


def _refused(name: str, rule: str, value: object, allowed: tuple[str, ...] | None = None) -> SettingsError:
    return SettingsError(f"{name} must be {rule}, got '{shown(value)}'", field=name, allowed=allowed)


def _text(name: str, value: Any, limits: Limits) -> str:
    if not isinstance(value, str):
        raise _refused(name, "text", value)
    if (length := len(value) - value.count("\r\n")) > limits.characters:  # before a copy is made
        raise SettingsError(f"{name} must be at most {limits.characters:,} characters, got {length:,}", field=name)
    text = value.replace("\r\n", "\n")
    if bad := FORBIDDEN.search(text):
        raise _refused(name, f"valid UTF-8 without control characters (character {bad.start() + 1})", bad[0])
    return text


def _filled(name: str, value: Any, limits: Limits) -> str:
    if not (text := _text(name, value, limits)).strip():
        raise SettingsError(f"{name} must not be empty", field=name)
    return text


def check_line(name: str, value: Any, limits: Limits = LOCAL) -> str:
    """Returns a text of one line without spaces around it; raises SettingsError."""
    text = _filled(name, value, limits)
    if "\n" in text or "\t" in text or text != text.strip():
        raise _refused(name, "one line without spaces around it", value)
    return text


def _preset(name: str, value: Any, limits: Limits) -> str:
    if not isinstance(value, str) or not PRESET_NAME.fullmatch(value):
        raise _refused(name, "a preset name (a-z, 0-9, - and _, at most 64)", value)
    return value


def _scheduler(name: str, value: Any, limits: Limits) -> str:
    return find_scheduler(check_line(name, value, limits)).name


def _one_of(*choices: str) -> Check:
    def check(name: str, value: Any, limits: Limits) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _refused(name, " or ".join(choices), value, choices)
        return value

    return check


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    """True for an int and for an integral float below 2^53, beyond which a float has lost digits."""
    return isinstance(value, numbers.Integral) or (abs(value) < 2**53 and value == int(value))


def _whole(limit: str, rule: str = "{} to {}", multiple: int = 1) -> Check:
    def check(name: str, value: Any, limits: Limits) -> int:
        low, high = getattr(limits, limit)
        if not (_is_number(value) and low <= value <= high and _is_whole(value) and int(value) % multiple == 0):
            raise _refused(name, rule.format(low, high), value)
        return int(value)

    return check


def _real(limit: str) -> Check:
    def check(name: str, value: Any, limits: Limits) -> float:
        low, high = getattr(limits, limit)
        if not (_is_number(value) and low <= value <= high):
            raise _refused(name, f"{low:g} to {high:g}", value)
        return float(value) + 0.0  # -0.0 becomes 0.0

    return check


def _switch(name: str, value: Any, limits: Limits) -> bool:
    if not isinstance(value, bool):
        raise _refused(name, "true or false", value)
    return value


def _guidance(name: str, value: Any, limits: Limits) -> str:
    """Checks one method or a union of two, whose names come out sorted."""
    joined = "+".join(sorted(part.strip() for part in value.split("+"))) if isinstance(value, str) else value
    if not isinstance(joined, str) or joined not in METHODS:
        raise _refused(name, ", ".join(METHODS), value, METHODS)
    return joined


def _candidates(name: str, value: Any, limits: Limits) -> int:
    if not (_is_number(value) and value in CANDIDATES):
        raise _refused(name, "2, 4, 8 or 16", value)
    return int(value)


def split_target(target: str) -> tuple[str, float]:
    """Returns what a target names and its weight: `snow:-0.5` -> ("snow", -0.5); without a weight it is 1."""
    words, colon, weight = target.rpartition(":")
    number = _number(weight.strip()) if colon else None
    return (words.strip(), float(number)) if isinstance(number, int | float) else (target.strip(), 1.0)


def _targets(name: str, value: Any, limits: Limits) -> tuple[str, ...]:
    """Checks a list of `words:weight`; each comes out as one line with its weight."""
    if isinstance(value, str) or not isinstance(value, Iterable) or len(targets := tuple(value)) > MAX_TARGETS:
        raise _refused(name, f"a list of at most {MAX_TARGETS} texts", value)
    checked = []
    for target in targets:
        words, weight = split_target(check_line(name, target, limits))
        if not words:
            raise SettingsError(f"{name} must name something before its weight, got '{shown(target)}'", field=name)
        checked.append(f"{words}:{_real('target')(name, weight, limits):g}")
    return tuple(checked)


def _lines(name: str, value: Any, limits: Limits) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable) or len(lines := tuple(value)) > MAX_TARGETS:
        raise _refused(name, f"a list of at most {MAX_TARGETS} texts", value)
    return tuple(check_line(name, line, limits) for line in lines)


_SIDE = _whole("side", "{} to {} and a multiple of 8", multiple=8)
_PART = _real("part")


def _knob(text: str, check: Check, default: Any = dataclasses.MISSING) -> Any:
    """Returns a dataclass field with its line of help and its check; a default of None makes None a valid value."""
    return dataclasses.field(default=default, metadata={"help": text, "check": check})


@dataclass(frozen=True)
class Settings:
    """Everything that decides a picture; checked when made, so a Settings in hand is a valid one.

    None in steps, width, height, scheduler, guidance_scale and eta means the model's own. Raises SettingsError.
    """

    prompt: str = _knob("What to draw.", _filled)
    negative_prompt: str = _knob("What to keep out of the picture.", _text, "")
    prompt_syntax: Literal["a1111", "plain"] = _knob(
        "a1111 reads (word:1.2) and {a|b}, plain takes every character.", _one_of("a1111", "plain"), "a1111"
    )
    long_prompt: Literal["cut", "error"] = _knob(
        "Past the model's token limit: cut with a warning, or an error.", _one_of("cut", "error"), "cut"
    )
    prompt_template: str | None = _knob("The prompt as typed, before {a|b} choices were drawn.", _filled, None)
    model: str = _knob("A bundled name, a hub id org/name, or a ./folder.", check_line, "storybook")
    preset: str | None = _knob("A named look; `clipgen presets list` shows them.", _preset, None)
    seed: int | None = _knob("0 to 2^63-1, or random.", _whole("seed", "random or {} to {}"), None)
    images: int = _knob("How many pictures; picture k uses seed + k.", _whole("images"), 1)
    steps: int | None = _knob("Denoising steps, 1 to 150; more is slower and finer.", _whole("steps"), None)
    width: int | None = _knob("Pixels, 64 to 2048, a multiple of 8.", _SIDE, None)
    height: int | None = _knob("Pixels, 64 to 2048, a multiple of 8.", _SIDE, None)
    scheduler: str | None = _knob("The sampler; names of A1111, ComfyUI and InvokeAI work too.", _scheduler, None)
    guidance_scale: float | None = _knob("How strictly the prompt is followed, 0 to 50.", _real("guidance_scale"), None)
    eta: float | None = _knob("Fresh noise in each step of the ddim scheduler, 0 to 1.", _PART, None)
    cfg_start: float = _knob("Part of the run, 0 to 1, at which guidance_scale sets in.", _PART, 0.0)
    cfg_stop: float = _knob("Part of the run, 0 to 1, at which guidance_scale ends.", _PART, 1.0)
    guidance_rescale: float = _knob("Tames overexposure from a high guidance_scale, 0 to 1.", _PART, 0.0)
    guidance: str = _knob("How CLIP steers: off, clip, pick, clip+pick.", _guidance, "off")
    clip_guidance_scale: float = _knob("How strongly CLIP's gradient pulls, 0 to 1.", _PART, 0.25)
    cutouts: int = _knob("Views of the picture that CLIP gets in a guided step, 1 to 64.", _whole("cutouts"), 4)
    guidance_start: float = _knob("Part of the run, 0 to 1, at which CLIP guidance sets in.", _PART, 0.1)
    guidance_stop: float = _knob("Part of the run, 0 to 1, at which CLIP guidance ends.", _PART, 0.7)
    guidance_every: int = _knob("Guides every N-th step, 1 to 4.", _whole("guidance_every"), 1)
    through_unet: bool = _knob("Sends CLIP's gradient through the denoiser: slower, truer.", _switch, False)
    guide_decoder: str = _knob("What shows CLIP the latents.", _one_of(*DECODERS), "auto")
    candidates: int = _knob("Pictures that pick starts with: 2, 4, 8 or 16.", _candidates, 8)
    guard: str = _knob("Against fooling CLIP: off, survival or two-key.", _one_of(*GUARDS), "survival")
    guide: tuple[str, ...] = _knob("Also pulls towards a text, away if the weight is negative.", _targets, ())
    like: tuple[str, ...] = _knob("Also pulls towards what a picture shows.", _targets, ())
    clip_models: tuple[str, ...] = _knob("CLIP or SigLIP models that guide; the model's own.", _lines, ())

    def __post_init__(self) -> None:
        for name, value in _checked(self, LOCAL).items():
            object.__setattr__(self, name, value)

    def replace(self, **changes: Any) -> Settings:
        """Returns a copy with some fields changed. Raises SettingsError, for an unknown field too."""
        return Settings.from_dict({**self.to_dict(), **changes})

    def with_defaults(self, defaults: Mapping[str, Any]) -> Settings:
        """Returns a copy with the None of MODEL_FIELDS filled from `defaults`, whose other keys are left alone."""
        return self.replace(**{name: defaults.get(name) for name in MODEL_FIELDS if getattr(self, name) is None})

    def to_dict(self) -> dict[str, Any]:
        """Returns every field, JSON-safe, in the order of FIELDS."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Makes Settings from a mapping; raises SettingsError, naming the nearest field for an unknown key."""
        for key in values:
            if key not in FIELDS:
                raise SettingsError(unknown_name("setting", key, FIELDS), field=shown(key), allowed=FIELDS)
        return cls(**{"prompt": "", **values})


_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
FIELDS: tuple[str, ...] = tuple(_FIELDS)
DEFAULTS = {name: field.default for name, field in _FIELDS.items() if field.default is not dataclasses.MISSING}
MODEL_FIELDS = ("steps", "width", "height", "scheduler", "guidance_scale", "eta")
TEXT_FIELDS = frozenset(FIELDS[:7]) | {"scheduler", "guidance", "guide_decoder", "guard"}
LIST_FIELDS = ("guide", "like", "clip_models")
SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def seeded(settings: Settings) -> Settings:
    """Returns settings with a seed, drawn if nobody chose one."""
    return settings if settings.seed is not None else settings.replace(seed=secrets.randbelow(MAX_DRAWN_SEED + 1))


def unguided(settings: Settings) -> Settings:
    """Returns the settings of the twin: the same noise, without CLIP."""
    return settings.replace(guidance="off")


def validate(settings: Settings, limits: Limits) -> None:
    """Checks settings against one door's limits; raises SettingsError with one line that names the first fault."""
    _checked(settings, limits)


def check_field(name: str, value: Any, limits: Limits = LOCAL) -> Any:
    """Returns one field's value in its own type (20.0 steps become 20); raises SettingsError."""
    field = _FIELDS[name]
    return None if value is None and field.default is None else field.metadata["check"](name, value, limits)


def coerce(name: str, text: str) -> Any:
    """Parses and checks the text form of a field, as a flag, the environment or `--change` gives it.

    An empty text or `none`, for the seed also `random`, is None where that is a value; a list has an item a line.
    Raises SettingsError.
    """
    if name in LIST_FIELDS:
        return check_field(name, text.splitlines())
    if isinstance(_FIELDS[name].default, bool):
        return check_field(name, SWITCHES.get(text.lower(), text))
    if _FIELDS[name].default is None and text.lower() in ("", "none", "random" if name == "seed" else "none"):
        return None
    return check_field(name, text if name in TEXT_FIELDS else _number(text))


def _number(text: str) -> int | float | str:
    """Returns the number that the text spells, or the text itself for the check to refuse and quote."""
    for parse in (int, float):
        try:
            return parse(text)
        except ValueError:
            continue
    return text


def _checked(settings: Settings, limits: Limits) -> dict[str, Any]:
    """Returns every field in its own type, the fields held against each other too."""
    values = {name: check_field(name, getattr(settings, name), limits) for name in FIELDS}
    start, stop, steps, scheduler = (values[name] for name in ("cfg_start", "cfg_stop", "steps", "scheduler"))
    if start >= stop:
        raise SettingsError(f"cfg_start must be below cfg_stop ({stop:g}), got '{start:g}'", field="cfg_start")
    if values["guidance_start"] >= values["guidance_stop"]:
        raise _refused("guidance_start", f"below guidance_stop ({values['guidance_stop']:g})", values["guidance_start"])
    if steps and scheduler and steps > (most := SCHEDULERS[scheduler].max_steps):
        raise _refused("steps", f"1 to {most} with scheduler {scheduler}", steps)
    _check_size(values, limits)
    return values


def _check_size(values: Mapping[str, Any], limits: Limits) -> None:
    pixels = (values["width"] or 0) * (values["height"] or 0)
    work = pixels * (values["steps"] or 0) * values["images"]
    for what, amount, most in (
        ("width x height", pixels, limits.pixels),
        ("width x height x steps x images", work, limits.work),
    ):
        if most is not None and amount > most:
            raise SettingsError(f"{what} must be at most {most:,}, got '{amount:,}'", field="width")
