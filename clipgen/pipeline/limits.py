"""What a model can be asked for: said before anything of it is loaded, and again before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipgen.families import FAMILIES, Family
from clipgen.families.shared import scheduler_name
from clipgen.guidance.build import check_method_runs
from clipgen.models import Layout, SizeLimits
from clipgen.models.layout import CheckedModel
from clipgen.pipeline.variation import check_vary
from clipgen.sampling.prediction import read_prediction_type
from clipgen.settings.settings import Settings


@dataclass(frozen=True)
class Limits:
    """What a model can draw: `prediction` is its denoiser's, `sees` = it can be told a picture.

    `defaults` are the Settings fields that it decides, as far as they are known.
    """

    model: str
    layout: Layout
    sides: SizeLimits
    prediction: str
    sees: bool
    defaults: Mapping[str, Any]

    def check(self, settings: Settings) -> None:
        """Raises SettingsError, naming the field, for what this model cannot draw."""
        self.sides.check(settings.width, settings.height, self.model)
        check_method_runs(settings.with_defaults(self.defaults), self.model, self.prediction)
        check_vary(settings, self.model, self.layout, self.sees)


def limits_on_disk(checked: CheckedModel, model: str) -> Limits:
    """Returns the limits of a model that has passed the preflight and is called `model`."""
    known = {"scheduler": scheduler_name(checked.scheduler), **checked.defaults}
    prediction = read_prediction_type(checked.scheduler)
    return Limits(model, checked.layout, checked.size_limits, prediction, checked.accepts_image, known)


def limits_of(family: Family, model: str, defaults: Mapping[str, Any]) -> Limits:
    """Returns the limits of a loaded model that is called `model`."""
    layout, _ = FAMILIES[family.name]
    return Limits(model, layout, family.size_limits, family.prediction_type, family.encode_image is not None, defaults)
