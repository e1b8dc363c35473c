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
        text_layers: The layers of its CLIP text encoder; None if not CLIP alone reads the prompt.
    """

    model: str
    layout: Layout
    size_limits: SizeLimits
    prediction_type: str
    takes_image: bool
    defaults: Mapping[str, Any]
    text_layers: int | None = None

    def check(self, settings: Settings) -> None:
        """Raises SettingsError, naming the field, if the model cannot generate with these settings."""
        self.size_limits.check(settings.width, settings.height, self.model)
        check_method_runs(settings.with_defaults(self.defaults), self.model, self.prediction_type)
        takes_lora = self.layout.lora_loader is not None
        check_family(settings, self.model, self.layout.family, takes_lora=takes_lora, layers=self.text_layers)
        check_vary(settings, self.model, self.layout, self.takes_image)


def limits_on_disk(checked: CheckedModel, model: str) -> ModelLimits:
    """Returns the limits of a model that has passed the preflight and is not loaded yet."""
    return ModelLimits(
        model=model,
        layout=checked.layout,
        size_limits=checked.size_limits,
        prediction_type=read_prediction_type(checked.scheduler),
        takes_image=checked.accepts_image,
        defaults={"scheduler": scheduler_name(checked.scheduler), **checked.defaults},
        text_layers=_layers(checked.networks["text_encoder"].module) if checked.layout.clip_text else None,
    )


def limits_of_loaded(family: Family, model: str, defaults: Mapping[str, Any]) -> ModelLimits:
    """Returns the limits of a loaded model."""
    layout, _ = FAMILIES[family.name]
    return ModelLimits(
        model=model,
        layout=layout,
        size_limits=family.size_limits,
        prediction_type=family.prediction_type,
        takes_image=family.encode_image is not None,
        defaults=defaults,
        text_layers=_layers(family.text_encoders[0].model) if layout.clip_text else None,
    )


def _layers(text_encoder: Any) -> int:
    return int(text_encoder.config.num_hidden_layers)
