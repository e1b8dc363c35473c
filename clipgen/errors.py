"""Every error that clipgen raises for a person, each with its kebab-case code and exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class ClipgenError(Exception):
    """One line for a person: what is wrong, the value in quotes, what works.

    `field` names the Settings field or flag at fault, `allowed` what would have worked; both are optional
    and travel into the JSON envelope.
    """

    code: ClassVar[str] = "clipgen-error"
    exit_code: int = 1

    def __init__(self, message: str, *, field: str | None = None, allowed: Sequence[str] | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.allowed = None if allowed is None else list(allowed)

    def to_dict(self) -> dict[str, Any]:
        """Returns the `error` object of the JSON envelope: code, message, field, allowed."""
        return {"code": self.code, "message": str(self), "field": self.field, "allowed": self.allowed}


class OutputError(ClipgenError):
    """A path cannot be written: permissions, a full disk, a bad name."""

    code = "output-error"


class ImageFileError(ClipgenError):
    """An image file cannot be read as an image, or its metadata cannot be understood."""

    code = "image-file-error"


class ModelError(ClipgenError):
    """A model's files were refused: pickle, wrong shapes, not finite, foreign classes."""

    code = "model-error"


class SettingsError(ClipgenError):
    """A Settings field or a flag has a value that does not work."""

    code = "settings-error"
    exit_code = 2


class PresetError(ClipgenError):
    """A preset does not exist or its file is malformed."""

    code = "preset-error"
    exit_code = 2


class PromptError(ClipgenError):
    """The prompt's own syntax is wrong; the message gives the position."""

    code = "prompt-error"
    exit_code = 2


class ModelNotFound(ClipgenError):
    """The model is not on this machine, and may not or cannot be fetched."""

    code = "model-not-found"
    exit_code = 3


class OutOfMemory(ClipgenError):
    """Memory does not suffice, after every fallback."""

    code = "out-of-memory"
    exit_code = 4


class Withheld(ClipgenError):
    """A finished picture was withheld by the safety check."""

    code = "withheld"
    exit_code = 5


class BrokenImage(ClipgenError):
    """A picture came out flat or not finite, also after a retry in fp32."""

    code = "broken-image"
    exit_code = 5


class BelowMinScore(ClipgenError):
    """A picture lies below the percentile asked for; the files are kept."""

    code = "below-min-score"
    exit_code = 6


class Cancelled(ClipgenError):
    """The run was stopped; `results` holds what was finished by then."""

    code = "cancelled"
    exit_code = 130

    def __init__(self, message: str = "Stopped.", *, results: Sequence[Any] = (), exit_code: int = 130) -> None:
        super().__init__(message)
        self.results = list(results)
        self.exit_code = exit_code
