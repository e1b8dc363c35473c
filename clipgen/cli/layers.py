"""The sources of settings and their order: flags, preset, picture, environment, clipgen.toml, config.toml, model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipgen.cli import config_file
from clipgen.errors import SettingsError
from clipgen.home import config_path
from clipgen.settings.checks import unknown_name
from clipgen.settings.settings import DEFAULTS, FIELDS, MODEL_FIELDS, Note, Settings, coerce

ENVIRONMENT = "CLIPGEN_"
NO_FIELDS = ("CLIPGEN_HOME", "CLIPGEN_DRAWINGS")
ONE_CHOICE = {"budget": ("guidance", "off"), "guidance": ("budget", None)}  # a layer that sets one also sets the other


@dataclass(frozen=True)
class Layer:
    """The checked values of one source; `name` is its name in --dry-run.

    A layer that names a preset adds the preset's values just below its own. In a `replay` the preset's name is only a
    label, because the prompt already has its style.
    """

    name: str
    values: Mapping[str, Any]
    replay: bool = False


@dataclass(frozen=True)
class Resolved:
    """The merged values, each with the name of its layer; `replayed` are the fields that come from a picture."""

    values: dict[str, Any]
    origins: dict[str, str]
    replayed: set[str] = field(default_factory=set)

    def settings(self) -> Settings:
        """Returns the values as Settings; raises SettingsError, also for values that contradict each other."""
        if "prompt" not in self.values and self.values.get("vary") is None:
            raise SettingsError('The prompt is missing. Example: clipgen "a fox in snow"', field="prompt")
        return Settings.from_dict(self.values)


def resolve(layers: Sequence[Layer]) -> Resolved:
    """Merges layers, highest first: each field comes from the first layer that has it.

    The preset is a field like any other, so only the preset of the highest layer applies. Its style is applied to the
    merged prompts once.
    """
    from clipgen.settings.preset import load_preset

    expanded, preset = list(layers), None
    index = next((i for i, layer in enumerate(layers) if "preset" in layer.values), None)
    if index is not None and layers[index].values["preset"] is not None and not layers[index].replay:
        preset = load_preset(layers[index].values["preset"])
        expanded.insert(index + 1, Layer(f"preset {preset.name}", preset.settings))
    merged = _merge([each for layer in expanded for each in (layer, *_implied(layer))])
    _drop_stale_template(merged, expanded)
    if preset is not None:
        merged.values.update(preset.apply(merged.values))
    return merged


def _implied(layer: Layer) -> Iterator[Layer]:
    """Yields what a layer implies: a guidance removes the budget of lower layers, a budget their guidance."""
    for name, (other, neutral) in ONE_CHOICE.items():
        if layer.values.get(name) is not None and other not in layer.values:
            yield Layer(f"--{name}" if layer.name == "flags" else layer.name, {other: neutral})


def _merge(layers: Sequence[Layer]) -> Resolved:
    merged = Resolved({}, {})
    for layer in layers:
        for name in layer.values.keys() - merged.values.keys():
            merged.values[name] = layer.values[name]
            merged.origins[name] = layer.name
            merged.replayed.update({name} if layer.replay else ())
    return merged


def _drop_stale_template(merged: Resolved, layers: Sequence[Layer]) -> None:
    """Removes the template of a replayed prompt if a higher layer has another prompt."""
    if merged.values.get("prompt_template") and merged.origins["prompt_template"] != merged.origins.get("prompt"):
        rank = [layer.name for layer in layers]
        if rank.index(merged.origins["prompt"]) < rank.index(merged.origins["prompt_template"]):
            merged.values["prompt_template"] = None


def with_model(resolved: Resolved, defaults: Mapping[str, Any], model: str) -> Resolved:
    """Returns every field in the order of FIELDS; missing values come from the model, then from the defaults."""
    own = {n: defaults[n] for n in MODEL_FIELDS if resolved.values.get(n) is None and defaults.get(n) is not None}
    values = {**DEFAULTS, **resolved.values, **own}
    origins = {**dict.fromkeys(DEFAULTS, "default"), **resolved.origins, **dict.fromkeys(own, f"model {model}")}
    return Resolved({name: values[name] for name in FIELDS if name in values}, origins, resolved.replayed)


def environment(environ: Mapping[str, str] = os.environ) -> tuple[Layer, list[Note]]:
    """Returns the layer of CLIPGEN_<FIELD> variables, and a note for each that is no field; raises SettingsError."""
    values, notes = {}, []
    for variable, text in sorted(environ.items()):
        name = variable.removeprefix(ENVIRONMENT).lower()
        if not variable.startswith(ENVIRONMENT) or variable in NO_FIELDS or not text:
            continue
        if name in FIELDS:
            values[name] = _coerce_variable(variable, name, text)
        else:
            notes.append(Note("unknown-variable", None, unknown_name("environment variable", variable, _names())))
    return Layer("environment", values), notes


def _names() -> tuple[str, ...]:
    return tuple(ENVIRONMENT + name.upper() for name in FIELDS)


def _coerce_variable(variable: str, name: str, text: str) -> Any:
    try:
        return coerce(name, text)
    except SettingsError as error:
        raise SettingsError(f"{variable}: {error}", field=name, allowed=error.allowed) from error


def files(folder: Path) -> list[Layer]:
    """Returns the layers of a folder's clipgen.toml and of the user's config.toml; raises SettingsError."""
    project = folder / "clipgen.toml"
    return [
        *([Layer("./clipgen.toml", config_file.read_project(project))] if project.is_file() else []),
        *([Layer("config.toml", config_file.read_user().settings)] if config_path().is_file() else []),
    ]
