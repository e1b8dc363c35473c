"""Settings: every parameter of one generation with its default and its check. Defaults are defined here only."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from clipgen.errors import SettingsError
from clipgen.settings.checks import (
    DECODERS,
    GUARDS,
    LOCAL,
    MAX_DRAWN_SEED,
    Check,
    Limits,
    check_budget,
    check_candidates,
    check_filled,
    check_guidance,
    check_line,
    check_lines,
    check_loras,
    check_part,
    check_preset,
    check_scheduler,
    check_side,
    check_source,
    check_switch,
    check_targets,
    check_text,
    check_together,
    one_of,
    parse_number,
    printable,
    real,
    split_target,
    unknown_name,
    whole,
)

INFO_NOTES = frozenset({"budget", "read-as", "word-replaced"})  # codes of notes that are no warnings


@dataclass(frozen=True)
class Note:
    """A note for the user: a code in kebab case, the Settings field it is about, and one line of text."""

    code: str
    field: str | None
    message: str

    def to_dict(self) -> dict[str, str | None]:
        """Returns code, field and message for the record and the JSON events."""
        return dataclasses.asdict(self)


def _setting(text: str, check: Check, default: Any = dataclasses.MISSING) -> Any:
    """Returns a dataclass field with a help text and a check; with a default of None, None is a valid value."""
    return dataclasses.field(default=default, metadata={"help": text, "check": check})


@dataclass(frozen=True)
class Settings:
    """Every parameter that an image depends on; checked on creation, so that every Settings object is valid.

    None in one of MODEL_FIELDS means the model's default. Raises SettingsError.
    """

    prompt: str = _setting("Text that describes the picture.", check_filled)
    negative_prompt: str = _setting("Text that describes what the picture should not contain.", check_text, "")
    prompt_syntax: Literal["a1111", "plain"] = _setting(
        "a1111 parses weights (word:1.2) and choices {a|b}; plain uses the text unchanged.",
        one_of("a1111", "plain"),
        "a1111",
    )
    long_prompt: Literal["cut", "chunk", "error"] = _setting(
        "A prompt over the token limit: cut (truncate and warn), chunk (75-token windows) or error.",
        one_of("cut", "chunk", "error"),
        "cut",
    )
    prompt_template: str | None = _setting(
        "The prompt before its {a|b} choices are resolved; has no effect on the picture.", check_filled, None
    )
    model: str = _setting(
        "Model: a bundled name, a hub id org/name, a folder such as ./model, or x.safetensors.",
        check_line,
        "storybook",
    )
    preset: str | None = _setting(
        "Named style or group of settings; `clipgen presets list` shows all.", check_preset, None
    )
    vae: str | None = _setting(
        "VAE that replaces the model's: a hub id org/name, a folder, or a file x.safetensors.", check_line, None
    )
    seed: int | None = _setting(
        "Seed of the random noise: 0 to 2^63-1, or random.", whole("seed", "random or {} to {}"), None
    )
    images: int = _setting("Number of pictures, 1 to 1,000; the seed increases by 1 per picture.", whole("images"), 1)
    steps: int | None = _setting(
        "Number of denoising steps, 1 to 150; more steps are slower and add detail.", whole("steps"), None
    )
    width: int | None = _setting("Width in pixels, 64 to 2048, a multiple of 8.", check_side, None)
    height: int | None = _setting("Height in pixels, 64 to 2048, a multiple of 8.", check_side, None)
    scheduler: str | None = _setting(
        "Scheduler (sampler); names from A1111, ComfyUI and InvokeAI are accepted.", check_scheduler, None
    )
    guidance_scale: float | None = _setting(
        "Classifier-free guidance scale (CFG), 0 to 50; higher follows the prompt more closely.",
        real("guidance_scale"),
        None,
    )
    eta: float | None = _setting(
        "Noise that the ddim scheduler adds per step, 0 (deterministic) to 1.", check_part, None
    )
    cfg_start: float = _setting(
        "Fraction of the steps, 0 to 1, after which classifier-free guidance starts.", check_part, 0.0
    )
    cfg_stop: float = _setting(
        "Fraction of the steps, 0 to 1, after which classifier-free guidance stops.", check_part, 1.0
    )
    guidance_rescale: float = _setting(
        "Rescales classifier-free guidance to reduce overexposure, 0 (off) to 1.", check_part, 0.0
    )
    apg: bool = _setting(
        "Uses adaptive projected guidance (APG) to reduce oversaturation at high CFG scales.", check_switch, False
    )
    clip_skip: int = _setting(
        "Number of last layers of the CLIP text encoder to skip, 0 to 11; in A1111 one more.",
        whole("clip_skip"),
        0,
    )
    lora: tuple[str, ...] = _setting(
        "LoRA files, as file:weight or as name:weight from the folder loras; weights -4 to 4.", check_loras, ()
    )
    embedding: tuple[str, ...] = _setting(
        "Textual inversion files that a prompt names; not needed for the folder embeddings.", check_lines, ()
    )
    guidance: str = _setting(
        "CLIP guidance method: off, clip, pick, steer, optimise or clip+pick.", check_guidance, "off"
    )
    budget: float | None = _setting(
        "Maximum cost relative to an unguided picture, 1 to 64; selects the guidance method.", check_budget, None
    )
    clip_guidance_scale: float = _setting(
        "CLIP guidance scale, 0 (off) to 1: step size along the gradient of CLIP similarity.", check_part, 0.25
    )
    cutouts: int | None = _setting(
        "Number of random crops that CLIP scores per guided step, 1 to 64.", whole("cutouts"), None
    )
    guidance_start: float = _setting(
        "Fraction of the steps, 0 to 1, after which CLIP guidance starts.", check_part, 0.1
    )
    guidance_stop: float = _setting("Fraction of the steps, 0 to 1, after which CLIP guidance stops.", check_part, 0.7)
    guidance_every: int | None = _setting(
        "Applies CLIP guidance at every N-th step, 1 to 4.", whole("guidance_every"), None
    )
    through_unet: bool = _setting(
        "Backpropagates the CLIP gradient through the denoiser: slower, more exact.", check_switch, False
    )
    guide_decoder: str | None = _setting(
        f"Decoder of the latents for CLIP: {', '.join(DECODERS)}.", one_of(*DECODERS), None
    )
    candidates: int = _setting("Number of candidates that pick starts with: 2, 4, 8 or 16.", check_candidates, 8)
    particles: int = _setting("Number of particles that steer resamples, 2 to 16.", whole("particles"), 4)
    iterations: int = _setting(
        "Maximum number of gradient steps of optimise on the initial noise, 1 to 200.", whole("iterations"), 25
    )
    guard: str = _setting(
        "Check against adversarial pictures: off, survival, or two-key (a second CLIP can veto).",
        one_of(*GUARDS),
        "survival",
    )
    guide: tuple[str, ...] = _setting(
        "More target texts for CLIP guidance, as text:weight, -2 to 2; negative weights repel.", check_targets, ()
    )
    like: tuple[str, ...] = _setting(
        "Target pictures for CLIP guidance, as file:weight, -2 to 2; negative weights repel.", check_targets, ()
    )
    clip_models: tuple[str, ...] = _setting(
        "CLIP or SigLIP models that guide; the first one scores if the model has no CLIP.",
        check_lines,
        (),
    )
    vary: str | None = _setting(
        "Picture to generate variations of, as file:weight; 1 = picture only, 0 = prompt only.", check_source, None
    )

    def __post_init__(self) -> None:
        for name, value in _checked(self, LOCAL).items():
            object.__setattr__(self, name, value)

    @property
    def guided(self) -> bool:
        """Whether CLIP guides, by a named method or by the method that a budget chooses."""
        return self.guidance != "off" or self.budget is not None

    @property
    def title(self) -> str:
        """The title of an image: its prompt, or the name of the image that it is a variation of."""
        if self.prompt.strip() or self.vary is None:
            return self.prompt
        picture = re.split(r"[/\\]", split_target(self.vary)[0])[-1]
        return f"variation of {picture.rpartition('.')[0] or picture}"

    def replace(self, **changes: Any) -> Settings:
        """Returns a copy with some fields changed. Raises SettingsError, for an unknown field too."""
        return Settings.from_dict({**self.to_dict(), **changes})

    def with_defaults(self, defaults: Mapping[str, Any]) -> Settings:
        """Returns a copy in which `defaults` replace None in MODEL_FIELDS; other keys of `defaults` are ignored.

        GUIDANCE_FIELDS are filled only if CLIP guides.
        """
        fields = (name for name in MODEL_FIELDS if self.guided or name not in GUIDANCE_FIELDS)
        return self.replace(**{name: defaults.get(name) for name in fields if getattr(self, name) is None})

    def to_dict(self) -> dict[str, Any]:
        """Returns every field in the order of FIELDS, with lists in place of tuples."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Creates Settings from a mapping; raises SettingsError, with the nearest field for an unknown key."""
        for key in values:
            if key not in FIELDS:
                raise SettingsError(unknown_name("setting", key, FIELDS), field=printable(key), allowed=FIELDS)
        return cls(**{"prompt": "", **values})


_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
FIELDS: tuple[str, ...] = tuple(_FIELDS)
DEFAULTS = {name: field.default for name, field in _FIELDS.items() if field.default is not dataclasses.MISSING}
GUIDANCE_DEFAULTS = {"cutouts": 4, "guidance_every": 1, "guide_decoder": "auto"}  # of models that define none
GUIDANCE_FIELDS = tuple(GUIDANCE_DEFAULTS)
MODEL_FIELDS = ("steps", "width", "height", "scheduler", "guidance_scale", "eta", *GUIDANCE_FIELDS)
TEXT_FIELDS = frozenset(FIELDS[:7]) | {"scheduler", "guidance", "guide_decoder", "guard", "vary", "vae"}
ADAPTER_FIELDS = ("lora", "embedding")  # files that change the model
LIST_FIELDS = (*ADAPTER_FIELDS, "guide", "like", "clip_models")
SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def with_seed(settings: Settings) -> Settings:
    """Returns settings with a seed, a random one if `seed` is None."""
    return settings if settings.seed is not None else settings.replace(seed=secrets.randbelow(MAX_DRAWN_SEED + 1))


def without_guidance(settings: Settings) -> Settings:
    """Returns the settings without CLIP guidance; the start noise stays the same."""
    return settings.replace(guidance="off", budget=None)


def validate(settings: Settings, limits: Limits) -> None:
    """Checks settings against other limits than LOCAL; raises SettingsError for the first invalid field."""
    _checked(settings, limits)


def check_field(name: str, value: Any, limits: Limits = LOCAL) -> Any:
    """Returns the value of a field in the type of the field (20.0 steps become 20); raises SettingsError."""
    field = _FIELDS[name]
    return None if value is None and field.default is None else field.metadata["check"](name, value, limits)


def coerce(name: str, text: str) -> Any:
    """Parses and checks a field that a flag, the environment or `--change` gives as text.

    An empty text, `none`, and `random` for the seed mean None if None is valid; a list has one item per line. Raises
    SettingsError.
    """
    if name in LIST_FIELDS:
        return check_field(name, text.splitlines())
    if isinstance(_FIELDS[name].default, bool):
        return check_field(name, SWITCHES.get(text.lower(), text))
    if _FIELDS[name].default is None and text.lower() in ("", "none", "random" if name == "seed" else "none"):
        return None
    return check_field(name, text if name in TEXT_FIELDS else parse_number(text))


def _checked(settings: Settings, limits: Limits) -> dict[str, Any]:
    """Returns every field in its own type, after checking each one and their combinations."""
    check_prompt = check_field if settings.vary is None else check_text  # a variation needs no prompt
    values = {name: check_field(name, getattr(settings, name), limits) for name in FIELDS if name != "prompt"}
    values = {"prompt": check_prompt("prompt", settings.prompt, limits), **values}
    check_together(values, limits)
    return values
