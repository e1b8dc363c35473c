"""The clipgen record: everything that decided one picture, as JSON that goes into the picture and comes back out."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clipgen.image_file.paths import strip_folders
from clipgen.settings.checks import split_target
from clipgen.settings.settings import Note, Settings

SCHEMA = "clipgen/1"
_NOTHING: Mapping[str, str] = MappingProxyType({})


def make_record(
    settings: Settings,
    *,
    seed: int,
    clip: dict[str, Any] | None,
    model: dict[str, Any],
    runtime: dict[str, Any],
    inputs: Mapping[str, str] = _NOTHING,
    warnings: Sequence[Note] = (),
    likeness: float | None = None,
    job: str | None = None,
) -> dict[str, Any]:
    """Makes the record of one picture: schema, settings (every field), seed, job, clip, model, runtime and so on.

    `seed` is the picture's own. `clip`: model, similarity, score, percentile, captions, self_graded, curve; None =
    not scored. `model`: name, hash (SHA-256 of the denoiser's file), family. `runtime`: clipgen, torch, diffusers,
    device, dtype, rng. `inputs`: input name -> SHA-256. `likeness`, of variations: the cosine to what they vary. Local
    paths shrink to their base name.
    """
    return {
        "schema": SCHEMA,
        "settings": {
            **settings.to_dict(),
            "model": strip_folders(settings.model),
            "like": [_without_folders(target) for target in settings.like],
            "vary": None if settings.vary is None else _without_folders(settings.vary),
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


def _without_folders(target: str) -> str:
    """Returns a target of `like`, `folder/picture.png:0.5`, as its base name and weight."""
    picture, weight = split_target(target)
    return "./" + re.split(r"[/\\]", picture)[-1] + f":{weight:g}"


def to_json(record: Mapping[str, Any]) -> str:
    """Writes a record as one line of JSON with sorted keys; equal records give equal text."""
    return json.dumps(record, sort_keys=True, ensure_ascii=False, allow_nan=False)


def digest_of(source: Path | bytes) -> str:
    """Returns the SHA-256 of a file or of bytes, 64 hex digits. Raises OSError."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
