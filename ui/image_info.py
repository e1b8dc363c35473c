"""What the page knows about one image, whether it was generated just now, comes from the history or was uploaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen.history import Entry
from clipgen.settings.settings import Note, Settings

from .job_events import FinishedImage

if TYPE_CHECKING:
    from clipgen.image_file import RestoredSettings


@dataclass(frozen=True)
class CurvePoint:
    """The CLIP similarity of one step's preview to the prompt, and its percentile, None if it is not calibrated."""

    step: int
    similarity: float
    percentile: float | None


Curve = Sequence[CurvePoint]


@dataclass(frozen=True)
class ImageInfo:
    """One image and everything that the page says about it.

    Args:
        path: The file in the image store.
        settings: The Settings fields that generate the image again, except for the seed.
        seed: The seed of this image.
        seconds: How long it took, None if unknown.
        clip: `clipgen.clip.score.Score.to_dict()`, None if the model has no CLIP.
        warnings: Notes of the pipeline.
        curve: CLIP similarity of each step.
        unguided_curve: The same of the unguided image of a comparison.
        variation_similarity: CLIP similarity to the image that this one is a variation of, None for no variation.
    """

    path: str
    settings: dict[str, Any]
    seed: int
    seconds: float | None
    clip: dict[str, Any] | None
    warnings: tuple[Note, ...] = ()
    curve: Curve = ()
    unguided_curve: Curve = ()
    variation_similarity: float | None = None

    @classmethod
    def from_job(cls, image: FinishedImage, curve: Curve = (), unguided_curve: Curve = ()) -> ImageInfo:
        """Returns the info of an image that a job generated."""
        result = image.result
        return cls(
            path=str(image.path),
            settings=result.settings.to_dict(),
            seed=result.seed,
            seconds=result.seconds,
            clip=None if result.clip is None else result.clip.to_dict(),
            warnings=result.warnings,
            curve=tuple(curve),
            unguided_curve=tuple(unguided_curve),
            variation_similarity=result.likeness,
        )

    @classmethod
    def from_history(cls, path: Path, entry: Entry) -> ImageInfo:
        """Returns the info of an image of the history; `path` is its copy in the image store."""
        return cls(str(path), entry.settings.to_dict(), entry.settings.seed or 0, None, entry.clip)

    @classmethod
    def from_upload(cls, path: Path, restored: RestoredSettings) -> ImageInfo:
        """Returns the info of an uploaded image, from the settings stored inside it."""
        settings, record = restored.settings, restored.record or {}
        return cls(str(path), settings.to_dict(), settings.seed or record.get("seed") or 0, None, record.get("clip"))

    @property
    def title(self) -> str:
        """The prompt; for a variation without a prompt, the name of the source image."""
        return Settings.from_dict(self.settings).title

    def to_settings(self) -> Settings:
        """Returns the settings that generate exactly this image again."""
        return Settings.from_dict({**self.settings, "seed": self.seed})
