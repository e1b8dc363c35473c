"""What the shell offers after Tab: models, presets, schedulers and history ids, without loading anything heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from clipgen.sampling.schedulers import SCHEDULERS
from clipgen.settings.checks import CANDIDATES, DECODERS, GUARDS, METHODS

Choices = list[tuple[str, str]]
IDS = 30


def schedulers() -> Choices:
    """Returns the schedulers with their A1111 names."""
    return [(spec.name, " ".join(filter(None, (spec.a1111, spec.schedule_type)))) for spec in SCHEDULERS.values()]


def presets() -> Choices:
    """Returns the presets with their one sentence."""
    from clipgen.settings.preset import list_presets

    return [(preset.name, preset.about) for preset in list_presets()]


def models() -> Choices:
    """Returns the models on this machine."""
    from clipgen.models import list_models

    return [(model.name, "") for model in list_models()]


def ids() -> Choices:
    """Returns the newest history ids with their prompts."""
    from clipgen import history

    return [(str(entry.id), entry.settings.title) for entry in history.find(limit=IDS)]


def syntaxes() -> Choices:
    """Returns the two prompt syntaxes."""
    return [("a1111", "weights and choices"), ("plain", "every character counts")]


def long_prompts() -> Choices:
    """Returns what can be done with a prompt past the token limit."""
    return [("cut", "with a warning"), ("error", "refuse it")]


def among(names: Iterable[object], told: Mapping[str, str] = MappingProxyType({})) -> Callable[[], Choices]:
    """Returns what offers fixed names, each with what is told of it."""
    return lambda: [(str(name), told.get(str(name), "")) for name in names]


METHODS_TOLD = {
    "off": "CLIP only looks",
    "clip": "by CLIP's gradient",
    "pick": "CLIP chooses among candidates",
    "steer": "promising pictures multiply",
    "optimise": "better and better start noise, for 1 to 4 steps",
}
DECODERS_TOLD = {"auto": "the first the model has", "full": "the model's own decoder, slow"}
GUARDS_TOLD = {"survival": "warns when the gain is fragile", "two-key": "a second CLIP has a veto"}
VALUES: Mapping[str, Callable[[], Choices]] = {
    "model": models,
    "preset": presets,
    "scheduler": schedulers,
    "prompt_syntax": syntaxes,
    "long_prompt": long_prompts,
    "guidance": among(METHODS, METHODS_TOLD),
    "guide_decoder": among(DECODERS, DECODERS_TOLD),
    "guard": among(GUARDS, GUARDS_TOLD),
    "candidates": among(CANDIDATES),
}
