"""Values for shell completion: models, presets, schedulers and history ids. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from clipgen.home import adapter_files
from clipgen.sampling.schedulers import SCHEDULERS
from clipgen.settings.checks import CANDIDATES, DECODERS, GUARDS, METHODS

Choices = list[tuple[str, str]]  # a value and its description
MAX_IDS = 30


def schedulers() -> Choices:
    """Returns the schedulers with their A1111 names."""
    return [(spec.name, " ".join(filter(None, (spec.a1111, spec.schedule_type)))) for spec in SCHEDULERS.values()]


def presets() -> Choices:
    """Returns the presets with their descriptions."""
    from clipgen.settings.preset import list_presets

    return [(preset.name, preset.about) for preset in list_presets()]


def models() -> Choices:
    """Returns the models on this machine."""
    from clipgen.models import list_models

    return [(model.name, "") for model in list_models()]


def adapters(kind: str) -> Callable[[], Choices]:
    """Returns a completion function for the names of LoRAs or embeddings in the user's folders."""
    return lambda: [(name, "") for name in sorted(adapter_files(f"{kind}s"))]


def ids() -> Choices:
    """Returns the newest history ids with their prompts."""
    from clipgen import history

    return [(str(entry.id), entry.settings.title) for entry in history.find(limit=MAX_IDS)]


def choices(values: Iterable[object], descriptions: Mapping[str, str] = MappingProxyType({})) -> Callable[[], Choices]:
    """Returns a completion function for fixed values."""
    return lambda: [(str(value), descriptions.get(str(value), "")) for value in values]


SYNTAXES = {"a1111": "weights and choices", "plain": "every character is text"}
LONG_PROMPTS = {"cut": "with a warning", "chunk": "windows of 75 tokens", "error": "refuse it"}
METHOD_DESCRIPTIONS = {
    "off": "CLIP only scores",
    "clip": "the gradient of CLIP similarity",
    "pick": "CLIP selects among candidates",
    "steer": "particles are resampled by their CLIP score",
    "optimise": "optimises the start noise, for models of 1 to 4 steps",
}
DECODER_DESCRIPTIONS = {"auto": "the first one that the model has", "full": "the model's own decoder, slow"}
GUARD_DESCRIPTIONS = {"survival": "warns if the gain is not robust", "two-key": "a second CLIP must agree"}
VALUES: Mapping[str, Callable[[], Choices]] = {
    "model": models,
    "preset": presets,
    "lora": adapters("lora"),
    "embedding": adapters("embedding"),
    "scheduler": schedulers,
    "prompt_syntax": choices(SYNTAXES, SYNTAXES),
    "long_prompt": choices(LONG_PROMPTS, LONG_PROMPTS),
    "guidance": choices(METHODS, METHOD_DESCRIPTIONS),
    "guide_decoder": choices(DECODERS, DECODER_DESCRIPTIONS),
    "guard": choices(GUARDS, GUARD_DESCRIPTIONS),
    "candidates": choices(CANDIDATES),
}
