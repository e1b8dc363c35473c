"""What the shell offers after Tab: models, presets, schedulers and history ids, without loading anything heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from clipgen.schedulers import SCHEDULERS

Choices = list[tuple[str, str]]
IDS = 30


def schedulers() -> Choices:
    """Returns the schedulers with their A1111 names."""
    return [(spec.name, " ".join(filter(None, (spec.a1111, spec.schedule_type)))) for spec in SCHEDULERS.values()]


def presets() -> Choices:
    """Returns the presets with their one sentence."""
    from clipgen.preset import list_presets

    return [(preset.name, preset.about) for preset in list_presets()]


def models() -> Choices:
    """Returns the models on this machine."""
    from clipgen.models import list_models

    return [(model.name, "") for model in list_models()]


def ids() -> Choices:
    """Returns the newest history ids with their prompts."""
    from clipgen import history

    return [(str(entry.id), entry.settings.prompt) for entry in history.find(limit=IDS)]


def syntaxes() -> Choices:
    """Returns the two prompt syntaxes."""
    return [("a1111", "weights and choices"), ("plain", "every character counts")]


def long_prompts() -> Choices:
    """Returns what can be done with a prompt past the token limit."""
    return [("cut", "with a warning"), ("error", "refuse it")]


VALUES: Mapping[str, Callable[[], Choices]] = {
    "model": models,
    "preset": presets,
    "scheduler": schedulers,
    "prompt_syntax": syntaxes,
    "long_prompt": long_prompts,
}
