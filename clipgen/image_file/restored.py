"""From what a reader found to valid Settings: one rule for every app on what is taken, dropped and told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clipgen.errors import ImageFileError, SettingsError
from clipgen.image_file.foreign_prompt import to_clipgen
from clipgen.sampling.schedulers import find_scheduler
from clipgen.settings.checks import printable
from clipgen.settings.settings import TEXT_FIELDS, Note, Settings, check_field, coerce

OTHER_NOISE = Note("other-noise", None, "Another app's noise differs; expect another picture.")
_TOGETHER = {
    "width x height": {"width", "height"},
    "cfg_start": {"cfg_start", "cfg_stop"},
    "guidance_start": {"guidance_start", "guidance_stop"},
}  # an error's field -> fields
LONGEST_NAME = 100
_USUAL_SCHEDULES = {"", "automatic", "normal", "simple", "discrete", "default"}


@dataclass(frozen=True)
class ParsedMetadata:
    """What one app's reader took out of a picture, before Settings has checked it.

    `fields`: Settings field -> value as the file has it; `sampler` and `schedule`: the app's own names; `unknown`:
    what Settings has no place for; `record`: clipgen's own record.
    """

    source: str
    fields: dict[str, Any]
    sampler: str | None = None
    schedule: str | None = None
    unknown: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    record: dict[str, Any] | None = None


@dataclass(frozen=True)
class RestoredSettings:
    """The settings inside a picture: valid Settings, the app that wrote them, and all that did not fit.

    `unknown`: what the app stored and Settings has no place for; `warnings`: what was dropped or changed; `raw`: the
    texts as they stand in the file; `record`: clipgen's own record, None for other apps.
    """

    settings: Settings
    source: str
    unknown: dict[str, Any]
    warnings: list[Note]
    raw: dict[str, str]
    record: dict[str, Any] | None


def text_of(value: Any) -> str:
    """Returns a text as it is, and anything else as an empty one."""
    return value if isinstance(value, str) else ""


def has_prompt(found: ParsedMetadata) -> bool:
    """Tells whether a reader found what makes a picture: words, or a picture that it is a variation of."""
    return any(text_of(found.fields.get(name)).strip() for name in ("prompt", "vary"))


def restore(found: ParsedMetadata, raw: Mapping[str, str]) -> RestoredSettings:
    """Checks every value, drops those out of limits with a warning, and says what another app's picture loses.

    Raises ImageFileError if the prompt itself cannot be taken.
    """
    notes = list(found.notes)
    fields = dict(found.fields)
    if found.source != "clipgen":
        _translate(found, fields, notes)
    if found.sampler:
        fields["scheduler"] = _scheduler(found.sampler, found.schedule or "", notes)
    fields = _valid(fields, notes)
    settings = _together(fields, notes)
    return RestoredSettings(settings, found.source, found.unknown, notes, dict(raw), found.record)


def _translate(found: ParsedMetadata, fields: dict[str, Any], notes: list[Note]) -> None:
    notes.append(OTHER_NOISE)
    for name in ("prompt", "negative_prompt"):
        fields[name], told = to_clipgen(text_of(fields.get(name)), name)
        notes += told
    if model := text_of(found.unknown.get("model")):
        notes.append(Note("model-not-used", "model", f"Drawn with model '{printable(model)}', which is not loaded."))


def _scheduler(sampler: str, schedule: str, notes: list[Note]) -> str | None:
    """Finds a scheduler by the app's names; an unknown one is told and leaves the current one.

    stable-diffusion.cpp puts both names into one: `euler_a discrete`, `dpm++2mv2 karras`.
    """
    sampler = sampler[:LONGEST_NAME]
    first, _, last = sampler.rpartition(" ")
    for name, kind in ((sampler, schedule), (first, last)):
        try:
            spec = find_scheduler(find_scheduler(name, kind).name, kind)  # only the first name has a Karras twin
        except SettingsError:
            continue
        if spec.schedule_type is None and kind.lower() not in _USUAL_SCHEDULES:
            message = f"The schedule type '{printable(kind)}' is not applied to {spec.name}."
            notes.append(Note("schedule-type-unknown", "scheduler", message))
        return spec.name
    message = f"Unknown scheduler '{printable(sampler)}': the current one stays."
    notes.append(Note("scheduler-unknown", "scheduler", message))
    return None


def _valid(fields: Mapping[str, Any], notes: list[Note]) -> dict[str, Any]:
    """Returns the fields whose value is inside the limits; None means the app did not say."""
    valid = {}
    for name, value in fields.items():
        if name == "prompt" and not text_of(value).strip() and text_of(fields.get("vary")):
            continue
        try:
            is_spelled = isinstance(value, str) and name not in TEXT_FIELDS
            valid[name] = coerce(name, value) if is_spelled else check_field(name, value)
        except SettingsError as error:
            if name == "prompt":
                raise ImageFileError(f"The prompt in the picture cannot be used: {error}.") from None
            if value is not None:
                notes.append(_dropped(name, error))
    return {name: value for name, value in valid.items() if value is not None}


def _together(fields: dict[str, Any], notes: list[Note]) -> Settings:
    """Makes the Settings, dropping fields that each are fine but do not go together."""
    while True:
        try:
            return Settings.from_dict(fields)
        except SettingsError as error:
            culprits = _TOGETHER.get(error.field or "", {error.field}) & fields.keys()
            if not culprits:
                raise ImageFileError(f"The settings in the picture do not go together: {error}.") from None
            notes.append(_dropped(error.field, error))
            fields = {name: value for name, value in fields.items() if name not in culprits}


def _dropped(name: str | None, error: SettingsError) -> Note:
    return Note("value-dropped", name, f"Not taken: {error}")
