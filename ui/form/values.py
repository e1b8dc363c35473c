"""Converts the values of the form's components to Settings fields and back.

Optional fields, seeds and lists are text in the form, and an image field is a file with a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from clipgen.settings.checks import split_target
from clipgen.settings.preset import list_presets
from clipgen.settings.settings import DEFAULTS, LIST_FIELDS, coerce

from .fields import FIELD_ORDER, OPTIONAL, WEIGHTS


def read(raw: Sequence[Any]) -> dict[str, Any]:
    """Returns the values of the components, in the order of `FIELD_ORDER`, as Settings fields.

    The values are not checked, except that text that must be a number raises SettingsError.
    """
    values = dict(zip(FIELD_ORDER, raw, strict=True))
    for name, weight in WEIGHTS.items():
        values[name] = _image_target(values[name], values.pop(weight))
    values["like"] = [values["like"]] if isinstance(values["like"], str) else values["like"] or []
    for name, value in values.items():
        if name in OPTIONAL and isinstance(value, str):
            values[name] = coerce(name, value.strip())
        elif name in LIST_FIELDS and isinstance(value, str):
            values[name] = [line.strip() for line in value.splitlines() if line.strip()]
    return values


def _image_target(file: Any, weight: Any) -> Any:
    """Returns `path:weight` for Gradio's FileData dict, None without a file."""
    return f"{file['path']}:{weight}" if isinstance(file, dict) and "path" in file else file or None


def no_image(path: str) -> bool:
    """Returns False: no image is in the image store."""
    return False


def write(values: Mapping[str, Any], models: Sequence[str], has_image: Callable[[str], bool] = no_image) -> list[Any]:
    """Returns the updates of the components, in the order of `FIELD_ORDER`, that show the given Settings fields.

    Args:
        values: The value of every Settings field.
        models: The models of this server; another model leaves the component as it is.
        has_image: Whether a path is in the image store. Other images are not shown, and of `like` only the first is.
    """
    targets = {"like": next(iter(values["like"]), ""), "vary": values["vary"] or ""}
    for name, target in targets.items():
        path, weight = split_target(target)
        values = {**values, name: path if has_image(path) else None, WEIGHTS[name]: weight}
    skipped = () if values["model"] in models else ("model",)
    return [gr.skip() if name in skipped else to_component(name, values[name]) for name in FIELD_ORDER]


def to_component(name: str, value: Any) -> Any:
    """Returns a Settings value as its component shows it."""
    if name in WEIGHTS:
        return value
    if name in LIST_FIELDS:
        return "\n".join(value)
    if name in OPTIONAL:
        return "" if value is None else str(value).removesuffix(".0")
    return "" if value is None else value


def apply_preset(name: str) -> list[Any]:
    """Returns the updates of the components when a preset is chosen.

    Fields that some other preset sets, and this one does not, return to their defaults.
    """
    presets = {preset.name: preset.settings for preset in list_presets()}
    fields = {field for settings in presets.values() for field in settings} - {"model"}
    values = {**{field: DEFAULTS[field] for field in fields}, **presets.get(name, {})}
    return [to_component(field, values[field]) if field in values else gr.skip() for field in FIELD_ORDER]


def preset_description(name: str) -> str:
    """Returns the one-line description of a preset, "" if there is no such preset."""
    return next((preset.about for preset in list_presets() if preset.name == name), "")
