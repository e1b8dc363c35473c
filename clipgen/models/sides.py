"""What a model's pictures may measure."""

from __future__ import annotations

from dataclasses import dataclass

from clipgen.errors import SettingsError


@dataclass(frozen=True)
class Sides:
    """The sides that a model can draw, in pixels: multiples of `unit`, and at most `most` (None: no limit)."""

    unit: int
    most: int | None = None

    def check(self, width: int | None, height: int | None, model: str) -> None:
        """Raises SettingsError, naming the field, for a side that this model cannot draw; None is the model's own."""
        for name, side in (("width", width), ("height", height)):
            if side is not None and side % self.unit:
                rule = f"a multiple of {self.unit}"
            elif side is not None and self.most is not None and side > self.most:
                rule = f"at most {self.most}"
            else:
                continue
            raise SettingsError(f"{name} must be {rule} for model '{model}', got '{side}'", field=name)
