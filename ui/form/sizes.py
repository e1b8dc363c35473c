"""The sizes that a model is good at: its own, and other aspect ratios with about as many pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from clipgen.models.layout import SizeLimits
from clipgen.settings.checks import Limits

from ..worker import Worker

ASPECT_RATIOS: Mapping[str, float] = {
    "Square": 1,
    "Portrait": 3 / 4,
    "Landscape": 4 / 3,
    "Tall": 9 / 16,
    "Wide": 16 / 9,
}
ROUNDING = 16  # sides are rounded to a 16th of the model's longer side


@dataclass(frozen=True)
class Size:
    """A named size in pixels; `is_default` = it is the model's own, for which width and height remain empty."""

    name: str
    width: int
    height: int
    is_default: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.width} × {self.height}"

    @property
    def numbers(self) -> tuple[str, str]:
        """Width and height as text."""
        return str(self.width), str(self.height)

    @property
    def fields(self) -> tuple[str, str]:
        """What the form's width and height fields show when this size is chosen."""
        return ("", "") if self.is_default else self.numbers


def sizes(default: tuple[int, int], size_limits: SizeLimits, limits: Limits) -> list[Size]:
    """Returns the sizes to choose from; those that exceed a limit are left out.

    Args:
        default: The model's own width and height.
        size_limits: What the model's width and height must be a multiple of, and their maximum.
        limits: The limits of the server.
    """
    width, height = default
    area = width * height
    unit = (
        -(-max(width, height) // ROUNDING // size_limits.multiple_of) * size_limits.multiple_of
        or size_limits.multiple_of
    )
    result = []
    for name, ratio in ASPECT_RATIOS.items():
        if abs(ratio - width / height) < 0.01:
            result.append(Size(name, width, height, is_default=True))
            continue
        size = Size(name, _round(sqrt(area * ratio), unit), _round(sqrt(area / ratio), unit))
        if _is_allowed(size, size_limits, limits):
            result.append(size)
    return result


def _round(side: float, unit: int) -> int:
    return max(unit, round(side / unit) * unit)


def _is_allowed(size: Size, size_limits: SizeLimits, limits: Limits) -> bool:
    low, high = limits.side[0], min(limits.side[1], size_limits.max_size or limits.side[1])
    fits = all(low <= side <= high for side in (size.width, size.height))
    return fits and size.width * size.height <= limits.pixels


def model_sizes(worker: Worker, model: str) -> list[Size]:
    """Returns the sizes of the loaded model; none for another model, or if the model has no default size."""
    pipe = worker.pipeline
    if pipe is None or worker.model_name != model:
        return []
    width, height = pipe.defaults.get("width"), pipe.defaults.get("height")
    return sizes((width, height), pipe.family.size_limits, worker.config.limits) if width and height else []
