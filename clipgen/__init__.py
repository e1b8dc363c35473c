"""Prompt to image, offline, with a model in the box; the public names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipgen.attach import ClipGuidance
    from clipgen.errors import (
        BelowMinScore,
        BrokenImage,
        Cancelled,
        ClipgenError,
        ImageFileError,
        ModelError,
        ModelNotFound,
        OutOfMemory,
        OutputError,
        PresetError,
        PromptError,
        SettingsError,
        Withheld,
    )
    from clipgen.gallery import (
        Explanation,
        RankedImage,
        SearchHit,
        caption,
        classify,
        diversity,
        explain,
        explain_image,
        load_clip,
        rank,
        score,
        search,
        similarity,
    )
    from clipgen.image_file import RestoredSettings, read_settings
    from clipgen.models.known_words import known_words
    from clipgen.pipeline.generate import generate, generate_many, vary
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Result, Step
    from clipgen.settings.settings import Note, Settings

__all__ = [
    "BelowMinScore",
    "BrokenImage",
    "Cancelled",
    "ClipGuidance",
    "ClipgenError",
    "Explanation",
    "ImageFileError",
    "ModelError",
    "ModelNotFound",
    "Note",
    "OutOfMemory",
    "OutputError",
    "Pipeline",
    "PresetError",
    "PromptError",
    "RankedImage",
    "RestoredSettings",
    "Result",
    "SearchHit",
    "Settings",
    "SettingsError",
    "Step",
    "Withheld",
    "caption",
    "classify",
    "diversity",
    "explain",
    "explain_image",
    "generate",
    "generate_many",
    "known_words",
    "load_clip",
    "rank",
    "read_settings",
    "score",
    "search",
    "similarity",
    "vary",
]

_MODULES = {
    "ClipGuidance": "attach",
    **dict.fromkeys(("Explanation", "SearchHit", "RankedImage", "caption", "classify", "diversity"), "gallery"),
    **dict.fromkeys(("explain", "explain_image", "load_clip", "rank"), "gallery"),
    **dict.fromkeys(("score", "search", "similarity"), "gallery"),
    **dict.fromkeys(("RestoredSettings", "read_settings"), "image_file"),
    "known_words": "models.known_words",
    "Pipeline": "pipeline.pipeline",
    **dict.fromkeys(("Result", "Step"), "pipeline.result"),
    **dict.fromkeys(("Note", "Settings"), "settings.settings"),
    **dict.fromkeys(("generate", "generate_many", "vary"), "pipeline.generate"),
}


def __getattr__(name: str) -> Any:
    """Loads a public name on first use, so that `import clipgen` stays free of torch."""
    if name not in __all__:
        raise AttributeError(f"module 'clipgen' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"clipgen.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
