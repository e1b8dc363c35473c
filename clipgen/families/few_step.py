"""Default steps and guidance scale of models distilled to a few steps, which are known by their name or scheduler."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Words in the name of a model -> (steps, guidance_scale), from the model cards; a word may continue (TurboXL).
WORDS = {"turbo": (4, 0.0), "lightning": (4, 1.0), "lcm": (8, 1.5), "hypersd": (8, 0.0), "dmd2": (4, 0.0)}
WHOLE_WORDS = {"hyper": "hypersd"}  # words that do not count at the start of another word
Z_IMAGE, Z_IMAGE_TURBO, TURBO_SHIFT = "z_image", (8, 0.0), 3.0  # the shift of Z-Image's own scheduler is 6
STEPS_IN_NAME = re.compile(r"(?<![0-9])([1-9]|1[0-6])[ _-]?steps?(?![a-z])")
EULER = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")


def few_step_defaults(model: str, family: str, scheduler_config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the steps and the guidance scale of a model that needs few steps, {} for other models.

    `model` is a hub id or a folder. `family` decides for models of one word with different settings. The scheduler
    tells if the name does not: LCM, Euler with trailing timesteps, which SD-Turbo, SDXL-Turbo and Lightning use, and
    the shift of Z-Image-Turbo.
    """
    name = re.split(r"[/\\]", model.rstrip("/\\").partition("@")[0])[-1].lower()
    word = _word_in_name(name) or _word_of_scheduler(family, scheduler_config)
    if word is None:
        return {}
    steps, guidance_scale = Z_IMAGE_TURBO if (word, family) == ("turbo", Z_IMAGE) else WORDS[word]
    in_name = STEPS_IN_NAME.search(name)
    return {"steps": int(in_name[1]) if in_name else steps, "guidance_scale": guidance_scale}


def _word_in_name(name: str) -> str | None:
    for part in re.split(r"[^a-z0-9]+", name):
        if part in WHOLE_WORDS:
            return WHOLE_WORDS[part]
        for word in WORDS:
            if part.startswith(word):
                return word
    return None


def _word_of_scheduler(family: str, config: Mapping[str, Any]) -> str | None:
    if family == Z_IMAGE:
        return "turbo" if config.get("shift") == TURBO_SHIFT else None
    if config["_class_name"] == "LCMScheduler":
        return "lcm"
    trailing = config.get("timestep_spacing") == "trailing" and not config.get("rescale_betas_zero_snr")
    is_epsilon = config.get("prediction_type", "epsilon") == "epsilon"
    return "turbo" if config["_class_name"] in EULER and trailing and is_epsilon else None
