"""The errors that clipgen raises for users, each with its code for JSON and its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class ClipgenError(Exception):
    """The base class; its message is one line: what is wrong, the value in quotes, what works.

    Attributes:
        code: The name of the error in kebab case, for JSON.
        exit_code: The exit code of the command line.
        field: The Settings field or flag with the wrong value, if any.
        allowed: The values that are accepted, if they can be listed.
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
    """A file cannot be written: no permission, a full disk, a bad name."""

    code = "output-error"


class ImageFileError(ClipgenError):
    """An image file, or its metadata, cannot be read."""

    code = "image-file-error"


class ModelError(ClipgenError):
    """The files of a model are refused: pickle, wrong shapes, values that are not finite, unknown classes."""

    code = "model-error"


class SettingsError(ClipgenError, ValueError):
    """A Settings field or a flag has an invalid value."""

    code = "settings-error"
    exit_code = 2


class PresetError(ClipgenError):
    """A preset does not exist or its file is malformed."""

    code = "preset-error"
    exit_code = 2


class PromptError(ClipgenError):
    """The syntax of the prompt is wrong; the message gives the position."""

    code = "prompt-error"
    exit_code = 2


class ModelNotFound(ClipgenError, FileNotFoundError):
    """The model is not on this machine and cannot be downloaded."""

    code = "model-not-found"
    exit_code = 3


class OutOfMemory(ClipgenError):
    """There is too little memory, even after every fallback."""

    code = "out-of-memory"
    exit_code = 4


class BrokenImage(ClipgenError):
    """An image is flat or not finite, even after a retry in float32."""

    code = "broken-image"
    exit_code = 5


class BelowMinScore(ClipgenError):
    """An image is below the required percentile; the files are kept."""

    code = "below-min-score"
    exit_code = 6


class Cancelled(ClipgenError):
    """The run was stopped; `results` are the images finished by then."""

    code = "cancelled"
    exit_code = 130

    def __init__(self, message: str = "Stopped.", *, results: Sequence[Any] = (), exit_code: int = 130) -> None:
        super().__init__(message)
        self.results = list(results)
        self.exit_code = exit_code
