"""ClipGuidance: CLIP guidance for any diffusers pipeline, as a context manager.

    with ClipGuidance(pipe, "a fox in snow", scale=0.3):
        image = pipe("a fox in snow").images[0]

It replaces `scheduler.step`, which every pipeline calls once per step: the new one corrects the model output, then
calls the original. A forward hook on the denoiser records its outputs, conditional and unconditional.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from clipgen.attach.denoiser_output import unconditional_output
from clipgen.attach.guided_step import PipelineGuidance, prediction_type_of
from clipgen.attach.latent_layout import LatentLayout, token_grid
from clipgen.attach.refusals import check_pipeline, check_scheduler, find_denoiser, refuse_inference_mode
from clipgen.sampling.prediction import (
    corrects_after_step,
    inject,
    noise_level,
    shift_after_step,
    step_count,
    step_noise_levels,
)


class ClipGuidance:
    """Guides all images that a diffusers pipeline generates while the context is open, then restores the pipeline.

    Args:
        pipe: a pipeline that generates images from latents: with a scheduler, a denoiser and a VAE.
        prompt: what the images should show, one text, or one per prompt of the pipeline call.
        scale: clip_guidance_scale, 0 to 1.
        seed: image k draws its views from seed + k.
        fields: Settings fields: cutouts, guidance_start, guidance_stop, guidance_every, guide_decoder, guard
            (two-key), guide, like, clip_models.

    Raises SettingsError, ModelError, ModelNotFound.
    """

    def __init__(
        self, pipe: Any, prompt: str | Sequence[str], *, scale: float = 0.25, seed: int = 0, **fields: Any
    ) -> None:
        check_pipeline(pipe)
        check_scheduler(pipe.scheduler)
        self.pipe = pipe
        self.denoiser = find_denoiser(pipe)
        self.guidance = PipelineGuidance(pipe, prompt, scale, seed, fields)
        self._outputs: list[Any] = []  # of the denoiser, since the last scheduler step
        self._inputs: dict[str, Any] = {}  # keyword arguments of the denoiser, from its last call
        self._timesteps: Tensor | None = None  # of the current call of the pipeline
        self._next_index = 0
        self._scheduler: Any = None  # the one whose `step` is replaced
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        refuse_inference_mode()
        self._replace_step()
        hook = self.denoiser.register_forward_hook(self._record_output, with_kwargs=True)
        self._undo.append(hook.remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo, self._outputs, self._inputs, self._scheduler = [], [], {}, None

    def curve(self, image: int = 0) -> tuple[tuple[int, float], ...]:
        """Returns (step index, cosine similarity to the prompt) of each guided step of an image of the last call."""
        return self.guidance.curve(image)

    def _replace_step(self) -> None:
        """Replaces the `step` of the pipeline's scheduler; raises SettingsError for one that cannot be guided."""
        scheduler, attributes = self.pipe.scheduler, dict(vars(self.pipe.scheduler))
        check_scheduler(scheduler)
        scheduler.step = self._with_guidance(scheduler, scheduler.step)
        self._undo.append(functools.partial(_restore_step, scheduler, attributes))
        self._scheduler = scheduler

    def _record_output(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook: records the denoiser's output and inputs, and notices a scheduler that replaced the first."""
        self._outputs.append(_detached(output[0]))
        self._inputs = kwargs
        if self.pipe.scheduler is not self._scheduler:
            self._replace_step()

    def _with_guidance(self, scheduler: Any, step: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a scheduler's `step` that corrects x0."""

        @functools.wraps(step)  # pipelines inspect its signature
        def guided_step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **options: Any) -> Any:
            index, steps = self._step_index(scheduler, timestep), step_count(scheduler)
            outputs, self._outputs = self._outputs, []
            if not self.guidance.is_active(index, steps, len(sample)):
                return step(model_output, timestep, sample, *args, **options)

            # 1. The prediction of x0 in the model output: a learned variance is further channels.
            level, channels = noise_level(scheduler, timestep), sample.shape[1]
            mean, variance = model_output[:, :channels], model_output[:, channels:]
            uncond = unconditional_output(mean, outputs, sample)
            layout = self._layout(sample)

            # 2. The correction of x0, in the layout of the sample.
            correction = self.guidance.correction(scheduler, mean, uncond, sample, layout, level, index, steps)
            if correction is None:
                return step(model_output, timestep, sample, *args, **options)

            # 3. Into the model output, or for linear multistep methods into the sample after the step.
            if not corrects_after_step(scheduler):
                mean = inject(mean, correction, level, prediction_type_of(scheduler))
                return step(torch.cat([mean, variance], dim=1), timestep, sample, *args, **options)
            result = step(model_output, timestep, sample, *args, **options)
            return _shift_sample(result, shift_after_step(correction, *step_noise_levels(scheduler, index)))

        return guided_step

    def _layout(self, sample: Tensor) -> LatentLayout:
        """Returns the layout of the pipeline's latents; for tokens the denoiser's inputs say how they lie."""
        grid = token_grid(self._inputs, sample.shape[1]) if sample.ndim == 3 else None
        return LatentLayout(sample.shape, self.guidance.vae.channels, grid)

    def _step_index(self, scheduler: Any, timestep: Any) -> int:
        """Returns the index of this step in the scheduler's timesteps; new timesteps mean a new call of the pipeline.

        Image-to-image pipelines start in the middle of the timesteps.
        """
        timesteps = scheduler.timesteps
        if timesteps is not self._timesteps:
            self._timesteps = timesteps
            self.guidance.start_run()
            first = torch.as_tensor(timestep).flatten()[0].to(timesteps.device)
            self._next_index = int((timesteps.double() - first.double()).abs().argmin())
        self._next_index += 1
        return self._next_index - 1


def _detached(output: Any) -> Any:
    """Returns an output of a denoiser, a tensor or a list of them, without its graph."""
    return output.detach() if isinstance(output, Tensor) else [_detached(part) for part in output]


def _restore_step(scheduler: Any, attributes: dict[str, Any]) -> None:
    """Restores the scheduler's `step`: that of its class, or that of an outer ClipGuidance in its attributes."""
    del scheduler.step
    if "step" in attributes:
        scheduler.step = attributes["step"]


def _shift_sample(result: Any, shift: Tensor) -> Any:
    """Returns the result of a scheduler step, a tuple or an output object, with its sample shifted."""
    if isinstance(result, tuple):
        return (result[0] + shift.to(result[0].dtype), *result[1:])
    result.prev_sample = result.prev_sample + shift.to(result.prev_sample.dtype)
    return result
