"""Settings: every knob of one generation, its default and its limits; the only home of defaults."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from clipgen.errors import SettingsError
from clipgen.limits import CHECKS, check_all, shown
from clipgen.limits import CHOICES as CHOICES
from clipgen.limits import LOCAL as LOCAL
from clipgen.limits import MAX_SEED as MAX_SEED
from clipgen.limits import PRESET_NAME as PRESET_NAME
from clipgen.limits import SERVED as SERVED
from clipgen.limits import Limits as Limits

MAX_DRAWN_SEED = 2**32 - 1  # a seed nobody chose stays below this, so that other apps can take it
MODEL_FIELDS = ("steps", "width", "height", "scheduler", "guidance_scale", "eta")
NUMBERS = frozenset(MODEL_FIELDS) - {"scheduler"} | {"seed", "images", "cfg_start", "cfg_stop", "guidance_rescale"}
OPTIONAL = frozenset(MODEL_FIELDS) | {"prompt_template", "preset", "seed"}
_NO_VALUE: dict[str, tuple[str, ...]] = {"seed": ("", "none", "random"), "prompt_template": ("",)}


@dataclass(frozen=True)
class Note:
    """One warning for people: a kebab-case code, the Settings field it is about, one line."""

    code: str
    field: str | None
    message: str

    def to_dict(self) -> dict[str, str | None]:
        """Returns code, field and message, as the record and the JSON events carry them."""
        return dataclasses.asdict(self)


def _knob(text: str, default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """Everything that decides a picture; checked when made, so a Settings in hand is a valid one.

    None in steps, width, height, scheduler, guidance_scale and eta means the model's own. Raises SettingsError.
    """

    prompt: str = _knob("What to draw.")
    negative_prompt: str = _knob("What to keep out of the picture.", "")
    prompt_syntax: Literal["a1111", "plain"] = _knob("a1111 reads (weights:1.2), plain takes every character.", "a1111")
    long_prompt: Literal["cut", "error"] = _knob("Past the token limit: cut with a warning, or an error.", "cut")
    prompt_template: str | None = _knob("The prompt as typed, before {a|b} choices were drawn.", None)
    model: str = _knob("A bundled name, a hub id org/name, or a ./folder.", "storybook")
    preset: str | None = _knob("A named look, by `clipgen presets list`.", None)
    seed: int | None = _knob("0 to 2^63-1, or random.", None)
    images: int = _knob("How many pictures; picture k uses seed + k.", 1)
    steps: int | None = _knob("Denoising steps, 1 to 150; more is slower and finer.", None)
    width: int | None = _knob("Pixels, 64 to 2048, a multiple of 8.", None)
    height: int | None = _knob("Pixels, 64 to 2048, a multiple of 8.", None)
    scheduler: str | None = _knob("The sampler; names of A1111, ComfyUI, InvokeAI and diffusers work too.", None)
    guidance_scale: float | None = _knob("How strictly the prompt is followed, 0 to 50.", None)
    eta: float | None = _knob("Fresh noise per step of the ddim scheduler, 0 to 1.", None)
    cfg_start: float = _knob("Part of the run, 0 to 1, at which guidance_scale sets in.", 0.0)
    cfg_stop: float = _knob("Part of the run, 0 to 1, at which guidance_scale ends.", 1.0)
    guidance_rescale: float = _knob("Tames overexposure from a high guidance_scale, 0 to 1.", 0.0)

    def __post_init__(self) -> None:
        for name, value in check_all(_raw(self), LOCAL).items():
            object.__setattr__(self, name, value)

    def replace(self, **changes: Any) -> Settings:
        """Returns a copy with some fields changed. Raises SettingsError, for an unknown field too."""
        return Settings.from_dict({**self.to_dict(), **changes})

    def with_defaults(self, defaults: Mapping[str, Any]) -> Settings:
        """Returns a copy whose None among the model's fields (MODEL_FIELDS) are filled; other keys are left alone."""
        return self.replace(**{name: defaults.get(name) for name in MODEL_FIELDS if getattr(self, name) is None})

    def to_dict(self) -> dict[str, Any]:
        """Returns every field, JSON-safe, in the order of FIELDS."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Makes Settings from a mapping; raises SettingsError, naming the nearest field for an unknown key."""
        for key in values:
            if key not in FIELDS:
                raise SettingsError(unknown_name("setting", key, FIELDS), field=shown(key), allowed=FIELDS)
        return cls(**{"prompt": "", **values})


FIELDS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Settings))
HELP: dict[str, str] = {field.name: field.metadata["help"] for field in dataclasses.fields(Settings)}


def validate(settings: Settings, limits: Limits) -> None:
    """Checks settings against one door's limits; raises SettingsError with one line that names the first fault."""
    check_all(_raw(settings), limits)


def check_field(name: str, value: Any, limits: Limits = LOCAL) -> Any:
    """Returns one field's value in its own type (an integral float becomes an int); raises SettingsError."""
    return CHECKS[name](name, value, limits)


def coerce(name: str, text: str) -> Any:
    """Parses the text form of a field (flag, environment, `--change`) and checks it; raises SettingsError.

    `random` is the seed None; an empty text or `none` is None for the other fields that may be None.
    """
    if name in OPTIONAL and text.lower() in _NO_VALUE.get(name, ("", "none")):
        return None
    if name not in NUMBERS:
        return check_field(name, text)
    number = _number(text)
    return check_field(name, text if number is None else number)


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Returns the line for an unknown key: what is wrong, and the nearest known name or all of them."""
    near = difflib.get_close_matches(shown(name), known, n=1)
    return f"Unknown {kind} {shown(name)!r}. " + (f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}.")


def _number(text: str) -> int | float | None:
    for parse in (int, float):
        try:
            return parse(text)
        except ValueError:
            continue
    return None


def _raw(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in FIELDS}
