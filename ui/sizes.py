"""The sizes that a model draws well: its own, and other shapes of about as many pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from clipgen.models.layout import SizeLimits
from clipgen.settings.checks import Limits

from .workshop import Workshop

SHAPES: Mapping[str, float] = {"Square": 1, "Portrait": 3 / 4, "Landscape": 4 / 3, "Tall": 9 / 16, "Wide": 16 / 9}
FINENESS = 16  # sides are rounded to this part of the model's own


@dataclass(frozen=True)
class Size:
    """A named size in pixels; `own` = the model's, which the form leaves open."""

    name: str
    width: int
    height: int
    own: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.width} × {self.height}"

    @property
    def numbers(self) -> tuple[str, str]:
        """Width and height as texts."""
        return str(self.width), str(self.height)

    @property
    def fields(self) -> tuple[str, str]:
        """What width and height of the form say."""
        return ("", "") if self.own else self.numbers


def sizes(own: tuple[int, int], sides: SizeLimits, limits: Limits) -> list[Size]:
    """Returns the sizes to choose from, the model's own shape among them as it is; none that a limit forbids."""
    width, height = own
    unit = -(-max(width, height) // FINENESS // sides.multiple_of) * sides.multiple_of or sides.multiple_of
    found = []
    for name, ratio in SHAPES.items():
        if abs(ratio - width / height) < 0.01:
            found.append(Size(name, width, height, own=True))
            continue
        area = width * height
        shaped = Size(name, _rounded(sqrt(area * ratio), unit), _rounded(sqrt(area / ratio), unit))
        if _allowed(shaped, sides, limits):
            found.append(shaped)
    return found


def _rounded(side: float, unit: int) -> int:
    return max(unit, round(side / unit) * unit)


def _allowed(size: Size, sides: SizeLimits, limits: Limits) -> bool:
    least, most = limits.side[0], min(limits.side[1], sides.max_size or limits.side[1])
    fits = all(least <= side <= most for side in (size.width, size.height))
    return fits and size.width * size.height <= limits.pixels


def sizes_of(workshop: Workshop, model: str) -> list[Size]:
    """Returns the sizes of a model, none while another one is loaded or it says nothing of its own."""
    pipe = workshop.pipeline
    if pipe is None or workshop.model != model:
        return []
    own = (pipe.defaults.get("width"), pipe.defaults.get("height"))
    return sizes((own[0], own[1]), pipe.family.size_limits, workshop.house.limits) if own[0] and own[1] else []
