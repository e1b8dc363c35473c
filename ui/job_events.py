"""What a job of the worker yields, in the order in which it happens: waiting, loading, steps, images, or its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipgen.compare import Scorers, Variant
    from clipgen.pipeline.result import Result


@dataclass(frozen=True)
class Waiting:
    """The job waits in the queue behind `position` other jobs."""

    position: int


@dataclass(frozen=True)
class Loading:
    """The job waits for its model, of which `percent` is loaded."""

    model: str
    percent: int


@dataclass(frozen=True)
class JobStopped:
    """The job was cancelled and has ended before its last image."""


@dataclass(frozen=True)
class FinishedImage:
    """A finished image.

    Args:
        result: The pipeline's result.
        path: The copy in the image store, which the browser loads.
        saved_path: The file in the output folder, None if the server saves no images.
    """

    result: Result
    path: Path
    saved_path: Path | None


@dataclass(frozen=True)
class ComparedImage:
    """One finished variant of a comparison, its image file, and the CLIPs that score it."""

    variant: Variant
    image: FinishedImage
    scorers: Scorers


@dataclass(frozen=True)
class TaskResult:
    """What a task returned."""

    value: Any
