"""Resolves a command line into runs: each prompt with each seed, merged with all layers and checked."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipgen.cli import config_file, layers
from clipgen.cli.flags import Flags
from clipgen.cli.layers import Layer, Resolved
from clipgen.cli.output import Report
from clipgen.cli.prompts import parse_seeds, parse_size
from clipgen.errors import SettingsError
from clipgen.settings.checks import is_weight_file, names_path, split_target
from clipgen.settings.settings import ADAPTER_FIELDS, DEFAULTS, FIELDS, MODEL_FIELDS, Note, Settings, coerce

LOCAL = re.compile(r"(\.{1,2}|~)?[/\\]|[A-Za-z]:[/\\]")


def plan(
    flags: Flags, prompts: Sequence[str], restored: Sequence[Layer], report: Report, pictures: Sequence[str] = ()
) -> list[Resolved]:
    """Returns a run per picture to vary, prompt and seed; without a prompt here a lower layer must have one.

    Args:
        flags: What the user typed.
        prompts: The prompts, each a run.
        restored: The layers of a picture or file, between the flags and the environment.
        report: Receives warnings about the environment.
        pictures: The pictures to vary, each a run.

    Raises SettingsError, PresetError.
    """
    below = [*restored, *surroundings(report)]
    seeds = [{"seed": seed} for seed in parse_seeds(flags.fields["seed"])] if "seed" in flags.fields else [{}]
    return [
        layers.resolve([*flag_layers(flags, {**picture, **words, **seed}), *below])
        for picture in ([{"vary": coerce("vary", each)} for each in pictures] or [{}])
        for words in ([{"prompt": prompt} for prompt in prompts] or [{}])
        for seed in seeds
    ]


def check_flags(flags: Flags) -> None:
    """Raises SettingsError or PresetError for an invalid option, before any file is opened."""
    from clipgen.settings.preset import load_preset

    parse_seeds(flags.fields.get("seed", "random"))
    if preset := typed(flags).get("preset"):
        load_preset(preset)


def typed(flags: Flags) -> dict[str, Any]:
    """Returns the values of the options except prompts and seeds; raises SettingsError."""
    return {**flags.values(), **_size(flags)}


def flag_layers(flags: Flags, words: Mapping[str, Any]) -> list[Layer]:
    """Returns the layers of the options and of `words` (prompt, seed); raises SettingsError.

    A CLIP guidance scale without a guidance or a budget implies `--guidance clip`.
    """
    values = {**typed(flags), **words}
    implies_clip = values.get("clip_guidance_scale") and "budget" not in values
    return [Layer("flags", values), *([Layer("--clip-guidance-scale", {"guidance": "clip"})] if implies_clip else [])]


def surroundings(report: Report) -> list[Layer]:
    """Returns the layers of the environment, clipgen.toml and config.toml; raises SettingsError."""
    environment, notes = layers.environment()
    for note in notes:
        report.warn(note)
    return [environment, *layers.files(Path.cwd())]


def _size(flags: Flags) -> dict[str, int]:
    if flags.options.size is None:
        return {}
    if both := [name for name in ("width", "height") if name in flags.fields]:
        raise SettingsError(f"--size and --{both[0]} exclude each other", field="size")
    return parse_size(flags.options.size)


def from_file(path: Path, report: Report, typed: Collection[str] = ()) -> tuple[Layer, int | None]:
    """Returns the layer of a picture, a record or a TOML file, and the picture's history id; raises ClipgenError.

    The history supplies the full paths of model and VAE of a picture that was drawn on this machine. The picture that
    it varies must exist with the same bytes, unless `typed` (the fields of the options) contains another one.
    """
    from clipgen import history
    from clipgen.image_file import read_settings
    from clipgen.pipeline import inputs

    name = f"from {path.name}"
    if path.suffix.lower() == ".toml":
        return Layer(name, config_file.read_project(path)), None
    restored = read_settings(path)
    for note in restored.warnings:
        report.warn(note)
    values = restored.settings.to_dict()
    if restored.record is None:
        return Layer(name, {key: value for key, value in values.items() if value != DEFAULTS.get(key)}), None
    entry = history.find_file(path)
    if values["vary"] is not None and "vary" not in typed:
        digest = restored.record["inputs"].get("vary")
        values["vary"] = inputs.find_source_image(values["vary"], digest, path, entry.settings.vary if entry else None)
    kept = {field: values[field] for field in ADAPTER_FIELDS if field not in typed}
    digests = restored.record["inputs"]
    values |= inputs.find_adapters(
        {**dict.fromkeys(ADAPTER_FIELDS, ()), **kept}, digests, path, entry.settings if entry else None
    )
    for lora in inputs.changed_loras(values["prompt"], values["prompt_syntax"], digests):
        report.warn(
            Note("lora-changed", "prompt", f"The LoRA '{lora}' is another file than when the picture was drawn.")
        )
    local = {"model": entry.settings.model, "vae": entry.settings.vae} if entry else {}
    own = Layer(name, {**values, **local}, replay=True)
    return own, entry.id if entry else None


def absolute_model(model: str) -> str:
    """Returns the absolute path of a local model, so that it is found from any folder; other ids unchanged."""
    is_local = LOCAL.match(model) or is_weight_file(model)
    return os.path.abspath(os.path.expanduser(model)) if is_local else model


def absolute_source(target: str | None) -> str | None:
    """Returns a picture to vary with its absolute path, so that it is found from any folder."""
    if target is None:
        return None
    picture, weight = split_target(target)
    return f"{os.path.abspath(os.path.expanduser(picture))}:{weight:g}"


def absolute_adapters(settings: Settings) -> dict[str, list[str]]:
    """Returns the adapter fields with absolute paths, so that the files are found from any folder."""
    return {name: [_absolute_adapter(target) for target in getattr(settings, name)] for name in ADAPTER_FIELDS}


def _absolute_adapter(target: str) -> str:
    name, _ = split_target(target)
    if not names_path(name):
        return target
    return os.path.abspath(os.path.expanduser(name)) + target.removeprefix(name)


def print_plan(runs: Sequence[Resolved], report: Report) -> None:
    """Prints every setting of every run and the layer that it comes from; loads nothing."""
    plans = []
    for run in runs:
        run.settings()
        model = run.values.get("model", DEFAULTS["model"])
        full = layers.with_model(run, own_defaults(model), model)
        plans.append({name: {"value": full.values[name], "from": origin(name, full)} for name in FIELDS})
    report.data = {"runs": plans}
    for number, rows in enumerate(plans):
        if number:
            report.result("")
        cells = {
            name: "random" if name == "seed" and row["value"] is None else row["value"] for name, row in rows.items()
        }
        report.table(("field", "value", "from"), [(name, cells[name], row["from"]) for name, row in rows.items()])


def own_defaults(model: str) -> dict[str, Any]:
    """Returns the settings that a model's clipgen.json recommends, {} if none; raises ModelNotFound, ModelError."""
    from clipgen.models import find_model
    from clipgen.models.header import read_json

    path = find_model(model).path / "clipgen.json"
    own: dict[str, Any] = read_json(path)["settings"] if path.is_file() else {}
    return own


def origin(name: str, run: Resolved) -> str:
    """Returns the source of a value as the user knows it: the option, the variable or the file."""
    layer = run.origins[name]
    if run.values[name] is None and name in MODEL_FIELDS:
        return "model"
    if layer == "flags":
        return f"--{'no-' * (run.values[name] is False)}{name.replace('_', '-')}"
    return f"{layers.ENVIRONMENT}{name.upper()}" if layer == "environment" else layer
