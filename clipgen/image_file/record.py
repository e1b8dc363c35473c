"""The clipgen record: everything that determines one image, as JSON that is stored in the image file."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from clipgen.image_file.paths import strip_folders
from clipgen.settings.checks import names_path, split_target
from clipgen.settings.settings import ADAPTER_FIELDS, Note, Settings

SCHEMA = "clipgen/1"
_NO_INPUTS: Mapping[str, str] = MappingProxyType({})


def make_record(
    settings: Settings,
    *,
    seed: int,
    clip: dict[str, Any] | None,
    model: dict[str, Any],
    runtime: dict[str, Any],
    inputs: Mapping[str, str] = _NO_INPUTS,
    warnings: Sequence[Note] = (),
    likeness: float | None = None,
    job: str | None = None,
) -> dict[str, Any]:
    """Returns the record of one image; local paths are reduced to their base names.

    Args:
        settings: all fields are stored.
        seed: the seed of this image.
        clip: model, similarity, score, percentile, captions, self_graded and curve; None if the image has no score.
        model: name, hash (SHA-256 of the denoiser's file) and family.
        runtime: clipgen, torch, diffusers, device, dtype and rng.
        inputs: input name -> SHA-256; a LoRA has the name `lora:<file name>`.
        warnings: notes about this image.
        likeness: for variations, the cosine similarity to the source image.
        job: the id of the batch job.
    """
    return {
        "schema": SCHEMA,
        "settings": {
            **settings.to_dict(),
            "model": strip_folders(settings.model),
            "vae": None if settings.vae is None else strip_folders(settings.vae),
            **{name: [_strip_adapter(target) for target in getattr(settings, name)] for name in ADAPTER_FIELDS},
            "like": [_strip_target(target) for target in settings.like],
            "vary": None if settings.vary is None else _strip_target(settings.vary),
            "clip_models": [strip_folders(model) for model in settings.clip_models],
        },
        "seed": seed,
        "job": job,
        "clip": copy.deepcopy(clip),
        "model": {**model, "name": strip_folders(model["name"])},
        "runtime": dict(runtime),
        "inputs": dict(inputs),
        "warnings": [note.to_dict() for note in warnings],
        **({} if likeness is None else {"likeness": likeness}),
    }


def _strip_adapter(target: str) -> str:
    """Returns a LoRA or an embedding without the folder of its file; a name from a folder stays as it is."""
    return "./" + re.split(r"[/\\]", target)[-1] if names_path(split_target(target)[0]) else target


def _strip_target(target: str) -> str:
    """Returns a target such as `folder/image.png:0.5` as `./image.png:0.5`."""
    path, weight = split_target(target)
    return "./" + re.split(r"[/\\]", path)[-1] + f":{weight:g}"


def to_json(record: Mapping[str, Any]) -> str:
    """Returns a record as one line of JSON with sorted keys; equal records give equal texts."""
    return json.dumps(record, sort_keys=True, ensure_ascii=False, allow_nan=False)
