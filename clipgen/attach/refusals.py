"""The pipelines that ClipGuidance refuses at construction, each with a reason of one line."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from clipgen.errors import ModelError, SettingsError
from clipgen.sampling.prediction import check_guidable

DENOISERS = ("unet", "transformer", "decoder")  # names of pipeline components
NOT_IMAGES = {  # parameters of a pipeline's call that only pipelines of another kind of output have
    "num_frames": "videos",
    "video_length": "videos",
    "video": "videos",
    "audio_length_in_s": "audio",
    "audio_end_in_s": "audio",
    "audio_duration": "audio",
    "layers": "several layers per image",
    "ensemble_size": "depth or normal maps",
    "frame_size": "3D objects",
}


def check_pipeline(pipe: Any) -> None:
    """Raises ModelError or SettingsError for a pipeline that cannot be guided whatever its call."""
    name = type(pipe).__name__
    parameters = inspect.signature(type(pipe).__call__).parameters
    for parameter, output in NOT_IMAGES.items():
        if parameter in parameters:
            raise ModelError(f"{name} generates {output}. ClipGuidance guides pipelines that generate images.")
    if pipe.components.get("scheduler") is None:
        raise ModelError(f"{name} has no scheduler. ClipGuidance guides pipelines that denoise latents step by step.")
    check_scheduler(pipe.scheduler)
    find_denoiser(pipe)


def check_scheduler(scheduler: Any) -> None:
    """Raises SettingsError for a scheduler class that cannot be guided."""
    check_guidable(type(scheduler).__name__)


def find_denoiser(pipe: Any) -> Any:
    """Returns the denoiser of a pipeline; raises ModelError for a pipeline without one."""
    for name in DENOISERS:
        if (denoiser := pipe.components.get(name)) is not None:
            return denoiser
    raise ModelError(f"{type(pipe).__name__} has no {' or '.join(DENOISERS)}.")


def refuse_inference_mode() -> None:
    """Raises SettingsError under torch.inference_mode."""
    if torch.is_inference_mode_enabled():
        raise SettingsError("ClipGuidance needs gradients, which torch.inference_mode forbids. Use torch.no_grad.")
