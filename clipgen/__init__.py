"""Text to image with latent diffusion and CLIP guidance, with a bundled model that works offline.

The public names are imported on first use, so that `import clipgen` does not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipgen.attach import ClipGuidance
    from clipgen.attach.clip_guider import ClipGuider
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
    from clipgen.models.find import bundled_model
    from clipgen.models.known_words import known_words
    from clipgen.pipeline.generate import generate, generate_many, vary
    from clipgen.pipeline.pipeline import Pipeline
    from clipgen.pipeline.result import Result, Step
    from clipgen.settings.settings import Note, Settings

    __version__: str

__all__ = [
    "BelowMinScore",
    "BrokenImage",
    "Cancelled",
    "ClipGuidance",
    "ClipGuider",
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
    "__version__",
    "bundled_model",
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
    "ClipGuider": "attach.clip_guider",
    **dict.fromkeys(("Explanation", "SearchHit", "RankedImage", "caption", "classify", "diversity"), "gallery"),
    **dict.fromkeys(("explain", "explain_image", "load_clip", "rank"), "gallery"),
    **dict.fromkeys(("score", "search", "similarity"), "gallery"),
    **dict.fromkeys(("RestoredSettings", "read_settings"), "image_file"),
    "bundled_model": "models.find",
    "known_words": "models.known_words",
    "Pipeline": "pipeline.pipeline",
    **dict.fromkeys(("Result", "Step"), "pipeline.result"),
    **dict.fromkeys(("Note", "Settings"), "settings.settings"),
    **dict.fromkeys(("generate", "generate_many", "vary"), "pipeline.generate"),
}


# In a checkout whose package is installed elsewhere, this folder shadows the installed one but lacks two subpackages.
_CHECKOUT = Path(__file__).resolve().parents[1]
if (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "presets" / "__init__.py").is_file():
    __path__.append(str(_CHECKOUT))  # finds ui/ and presets/ as clipgen.ui and clipgen.presets


def __getattr__(name: str) -> Any:
    """Imports a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("clipgen")
    if name not in __all__:
        raise AttributeError(f"module 'clipgen' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"clipgen.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
