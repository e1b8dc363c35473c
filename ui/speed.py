"""How fast this machine generates with the loaded model: seconds per FLOP, measured on the images finished so far."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import TYPE_CHECKING

from clipgen.settings.settings import Settings

if TYPE_CHECKING:
    from clipgen.pipeline.pipeline import Pipeline

WINDOW = 5  # images that the median is taken over


class SpeedEstimate:
    """The settings and the seconds of the last images of one model."""

    def __init__(self) -> None:
        self._images: deque[tuple[Settings, float]] = deque(maxlen=WINDOW)

    def add(self, settings: Settings, seconds: float) -> None:
        """Records how many seconds an image took."""
        self._images.append((settings, seconds))

    def seconds(self, pipe: Pipeline, flops: float) -> float | None:
        """Returns the expected seconds for a number of FLOP, None before the first image."""
        rates = [seconds / flops_of(pipe, settings) for settings, seconds in list(self._images)]
        return flops * median(rates) if rates else None


def flops_of(pipe: Pipeline, settings: Settings) -> float:
    """Returns the FLOP of one image; `settings` must have no open fields (`Settings.with_defaults`)."""
    from clipgen.guidance.budget import choice_of, image_flops

    return image_flops(settings, pipe.model_costs(settings), choice_of(settings))
