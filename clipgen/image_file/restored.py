"""Converts the metadata of any app to valid Settings, with notes about values that are dropped or changed."""

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
_COMBINATIONS = {
    "width x height": {"width", "height"},
    "cfg_start": {"cfg_start", "cfg_stop"},
    "guidance_start": {"guidance_start", "guidance_stop"},
}  # the field of an error -> the fields it is about
LONGEST_NAME = 100
_USUAL_SCHEDULES = {"", "automatic", "normal", "simple", "discrete", "default"}


@dataclass(frozen=True)
class ParsedMetadata:
    """The metadata that one app's reader returns, not validated yet.

    Attributes:
        source: the app.
        fields: Settings field -> value as in the file.
        sampler, schedule: the app's names.
        unknown: values without a Settings field.
        record: clipgen's record, None for other apps.
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
    """The settings in an image file.

    Attributes:
        settings: valid Settings.
        source: the app that wrote them.
        unknown: values without a Settings field.
        warnings: what was dropped or changed.
        raw: all texts of the file.
        record: clipgen's record, None for other apps.
    """

    settings: Settings
    source: str
    unknown: dict[str, Any]
    warnings: list[Note]
    raw: dict[str, str]
    record: dict[str, Any] | None


def text_of(value: Any) -> str:
    """Returns a string as it is, and any other value as an empty string."""
    return value if isinstance(value, str) else ""


def has_prompt(metadata: ParsedMetadata) -> bool:
    """Tells whether the metadata has a prompt or an image to vary."""
    return any(text_of(metadata.fields.get(name)).strip() for name in ("prompt", "vary"))


def restore(metadata: ParsedMetadata, raw: Mapping[str, str]) -> RestoredSettings:
    """Returns valid Settings; values out of limits are dropped with a warning.

    Raises ImageFileError if the prompt is invalid.
    """
    notes = list(metadata.notes)
    fields = dict(metadata.fields)
    if metadata.source != "clipgen":
        _translate(metadata, fields, notes)
    if metadata.sampler:
        fields["scheduler"] = _scheduler(metadata.sampler, metadata.schedule or "", notes)
    fields = _valid(fields, notes)
    settings = _combine(fields, notes)
    return RestoredSettings(settings, metadata.source, metadata.unknown, notes, dict(raw), metadata.record)


def _translate(metadata: ParsedMetadata, fields: dict[str, Any], notes: list[Note]) -> None:
    notes.append(OTHER_NOISE)
    for name in ("prompt", "negative_prompt"):
        fields[name], prompt_notes = to_clipgen(text_of(fields.get(name)), name)
        notes += prompt_notes
    if model := text_of(metadata.unknown.get("model")):
        notes.append(
            Note("model-not-used", "model", f"Generated with model '{printable(model)}', which is not loaded.")
        )


def _scheduler(sampler: str, schedule: str, notes: list[Note]) -> str | None:
    """Returns a scheduler by the app's names, None with a note if it is unknown.

    stable-diffusion.cpp writes both names as one: `euler_a discrete`, `dpm++2mv2 karras`.
    """
    sampler = sampler[:LONGEST_NAME]
    first, _, last = sampler.rpartition(" ")
    for name, kind in ((sampler, schedule), (first, last)):
        try:
            spec = find_scheduler(find_scheduler(name, kind).name, kind)  # the alias itself has no Karras variant
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
    """Returns the fields with valid values; None values are left out."""
    valid = {}
    for name, value in fields.items():
        if name == "prompt" and not text_of(value).strip() and text_of(fields.get("vary")):
            continue
        try:
            is_text = isinstance(value, str) and name not in TEXT_FIELDS
            valid[name] = coerce(name, value) if is_text else check_field(name, value)
        except SettingsError as error:
            if name == "prompt":
                raise ImageFileError(f"The prompt in the image is not valid: {error}.") from None
            if value is not None:
                notes.append(_dropped(name, error))
    return {name: value for name, value in valid.items() if value is not None}


def _combine(fields: dict[str, Any], notes: list[Note]) -> Settings:
    """Returns Settings, dropping fields that are valid alone but not in combination."""
    while True:
        try:
            return Settings.from_dict(fields)
        except SettingsError as error:
            culprits = _COMBINATIONS.get(error.field or "", {error.field}) & fields.keys()
            if not culprits:
                raise ImageFileError(f"The settings in the image cannot be combined: {error}.") from None
            notes.append(_dropped(error.field, error))
            fields = {name: value for name, value in fields.items() if name not in culprits}


def _dropped(name: str | None, error: SettingsError) -> Note:
    return Note("value-dropped", name, f"Not used: {error}")
