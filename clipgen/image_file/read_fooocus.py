"""Reads Fooocus: JSON in `parameters` of a PNG, in UserComment of a JPEG or WebP."""

from __future__ import annotations

import re
from typing import Any

from clipgen.image_file.restored import ParsedMetadata, text_of

_FIELDS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "steps": "steps",
    "guidance_scale": "guidance_scale",
}
_SKIP_OF_XL = 2  # Fooocus counts from the last layer, and SDXL itself ends one layer earlier
_KNOWN_KEYS = {*_FIELDS, "clip_skip", "sampler", "scheduler", "resolution", "base_model"}
# The repr of a pair, `(1152, 896)` or `('1152', '896')`.
_PAIR = re.compile(r"\(?'?(\d{1,6})'?, ?'?(\d{1,6})'?\)?")


def read(metadata: dict[str, Any]) -> ParsedMetadata | None:
    """Returns the settings in the metadata; None for JSON of another app.

    Early versions wrote labels such as `Guidance Scale` instead of keys.
    """
    values = {key.lower().replace(" ", "_"): value for key, value in metadata.items()}
    if "prompt" not in values or not {"resolution", "base_model", "performance"} & values.keys():
        return None
    fields = {field: values[key] for key, field in _FIELDS.items() if key in values}
    if size := _PAIR.fullmatch(text_of(values.get("resolution"))):
        fields |= {"width": size[1], "height": size[2]}
    if isinstance(skip := values.get("clip_skip"), int) and skip >= _SKIP_OF_XL:
        fields["clip_skip"] = skip - _SKIP_OF_XL
    unknown = {key: value for key, value in values.items() if key not in _KNOWN_KEYS}
    if "base_model" in values:
        unknown["model"] = values["base_model"]
    sampler, schedule = text_of(values.get("sampler")), text_of(values.get("scheduler"))
    return ParsedMetadata("Fooocus", fields, sampler=sampler, schedule=schedule, unknown=unknown)
