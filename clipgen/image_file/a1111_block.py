"""Writes the text block of A1111, which most programs read: prompt, negative prompt, one line of values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from clipgen.sampling.schedulers import SCHEDULERS

HASH_DIGITS = 10


def parameters_block(record: Mapping[str, Any]) -> str:
    """Returns the A1111 block of a record; it always ends with the line of values.

    Without that line A1111 would read the last line of a prompt such as `poster: big, text: red, size: small` as
    values.
    """
    settings = record["settings"]
    lines = [settings["prompt"]]
    if settings["negative_prompt"]:
        lines.append(f"Negative prompt: {settings['negative_prompt']}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in _values(record) if value is not None))
    return "\n".join(lines)


def _values(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields keys and values of the last line in A1111's order; keys with the value None are left out."""
    settings, model = record["settings"], record["model"]
    scheduler = SCHEDULERS[settings["scheduler"]] if settings["scheduler"] else None
    yield "Steps", settings["steps"]
    yield "Sampler", scheduler and scheduler.a1111
    yield "Schedule type", scheduler and scheduler.schedule_type
    yield "CFG scale", settings["guidance_scale"]
    yield "Seed", record["seed"]
    yield "Size", f"{settings['width']}x{settings['height']}" if settings["width"] and settings["height"] else None
    yield "Model hash", model["hash"] and model["hash"][:HASH_DIGITS]
    yield "Model", model["name"].removeprefix("./")
    yield "Clip skip", settings["clip_skip"] + 1 if settings["clip_skip"] else None  # A1111 counts from 1
    yield "RNG", record["runtime"]["rng"].upper()
    if settings["guidance"] != "off":
        yield "Guidance", settings["guidance"]
        yield "CLIP guidance scale", settings["clip_guidance_scale"] if "clip" in settings["guidance"] else None
        yield "Particles", settings["particles"] if settings["guidance"] == "steer" else None
        yield "Iterations", settings["iterations"] if settings["guidance"] == "optimise" else None
    clip = record["clip"] or {}
    for key in ("model", "similarity", "score", "percentile"):
        yield f"CLIP {key}", clip.get(key)
    yield "Version", f"clipgen {record['runtime']['clipgen']}"


def _quoted(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ',:\n"') else text
