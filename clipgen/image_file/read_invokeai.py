"""Reads InvokeAI 3 and later: the JSON of `invokeai_metadata`."""

from __future__ import annotations

from typing import Any

from clipgen.image_file.foreign_prompt import from_compel
from clipgen.image_file.restored import ParsedMetadata, text_of

KEYWORD = "invokeai_metadata"
_FIELDS = {
    "positive_prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "steps": "steps",
    "cfg_scale": "guidance_scale",
    "clip_skip": "clip_skip",
    "width": "width",
    "height": "height",
}


def read(metadata: dict[str, Any]) -> ParsedMetadata:
    """Returns the settings in the metadata, with prompt weights converted to clipgen's syntax."""
    fields = {field: metadata[key] for key, field in _FIELDS.items() if key in metadata}
    for name in ("prompt", "negative_prompt"):
        fields[name] = from_compel(text_of(fields.get(name)))
    unknown = {key: value for key, value in metadata.items() if key not in {*_FIELDS, "scheduler", "model"}}
    if isinstance(model := metadata.get("model"), dict):
        unknown["model"] = model.get("name", model.get("model_name"))
    return ParsedMetadata("InvokeAI", fields, sampler=text_of(metadata.get("scheduler")), unknown=unknown)
