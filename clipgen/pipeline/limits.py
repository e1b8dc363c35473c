"""What a model can generate; checked before its weights are loaded, and again before each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipgen.families import FAMILIES, Family
from clipgen.families.shared import scheduler_name
from clipgen.guidance.build import check_method_runs
from clipgen.models import Layout, SizeLimits
from clipgen.models.layout import CheckedModel
from clipgen.pipeline.adapters import check_family
from clipgen.pipeline.variation import check_vary
from clipgen.sampling.prediction import read_prediction_type
from clipgen.settings.settings import Settings


@dataclass(frozen=True)
class ModelLimits:
    """What a model can generate.

    Attributes:
        model: The name of the model, for error messages.
        layout: The folder layout of its family.
        size_limits: The image sizes it can generate.
        prediction_type: What its denoiser predicts (sampling.prediction.PREDICTIONS).
        takes_image: Whether it can be conditioned on an image.
        defaults: The model's values of Settings fields, as far as they are known.
    """

    model: str
    layout: Layout
    size_limits: SizeLimits
    prediction_type: str
    takes_image: bool
    defaults: Mapping[str, Any]

    def check(self, settings: Settings) -> None:
        """Raises SettingsError, naming the field, if the model cannot generate with these settings."""
        self.size_limits.check(settings.width, settings.height, self.model)
        check_method_runs(settings.with_defaults(self.defaults), self.model, self.prediction_type)
        check_family(settings, self.model, self.layout)
        check_vary(settings, self.model, self.layout, self.takes_image)


def limits_on_disk(checked: CheckedModel, model: str) -> ModelLimits:
    """Returns the limits of a model that has passed the preflight and is not loaded yet."""
    defaults = {"scheduler": scheduler_name(checked.scheduler), **checked.defaults}
    prediction_type = read_prediction_type(checked.scheduler)
    return ModelLimits(model, checked.layout, checked.size_limits, prediction_type, checked.accepts_image, defaults)


def limits_of_loaded(family: Family, model: str, defaults: Mapping[str, Any]) -> ModelLimits:
    """Returns the limits of a loaded model."""
    layout, _ = FAMILIES[family.name]
    takes_image = family.encode_image is not None
    return ModelLimits(model, layout, family.size_limits, family.prediction_type, takes_image, defaults)
