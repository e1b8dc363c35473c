"""Guided steps of a diffusers pipeline: a scheduler's `step` with the correction of x0 that CLIP asks for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clipgen.attach.denoiser_output import unconditional_output
from clipgen.attach.latent_layout import LatentLayout, token_grid
from clipgen.attach.pipeline_vae import PipelineVae
from clipgen.attach.refusals import refuse_inference_mode
from clipgen.errors import SettingsError
from clipgen.guidance.build import build_clip_gradient
from clipgen.guidance.clip_gradient import ClipGradient
from clipgen.guidance.latent_decoder import latent_decoder
from clipgen.guidance.targets import build_targets, choose_encoders
from clipgen.models.load_clip import load_encoder
from clipgen.sampling.loop import StepState
from clipgen.sampling.prediction import (
    NoiseLevel,
    corrects_after_step,
    inject,
    noise_level,
    read_prediction_type,
    recover_x0,
    shift_after_step,
    step_count,
    step_noise_levels,
)
from clipgen.settings.settings import GUIDANCE_DEFAULTS, Note, Settings

DEFAULT_CLIP = "openai/clip-vit-base-patch32"  # downloaded at the first use
CLIPS_X0 = Note("clip-sample", None, "The scheduler clips x0 (clip_sample), which cuts off corrections at its limits.")
FIELDS = ("cutouts", "guidance_start", "guidance_stop", "guidance_every", "guide_decoder", "guard", "guide", "like")


class GuidedStep:
    """The CLIPs, the VAE and the settings that guide one pipeline, and what is known of its current step.

    Args:
        pipe: a pipeline with a scheduler and a VAE.
        prompt: what the images should show, one text, or one per prompt of the pipeline call.
        scale: clip_guidance_scale, 0 to 1.
        seed: image k draws its views from seed + k.
        fields: Settings fields out of FIELDS, and clip_models.

    Raises SettingsError, ModelError, ModelNotFound.
    """

    def __init__(
        self, pipe: Any, prompt: str | Sequence[str], scale: float, seed: int, fields: Mapping[str, Any]
    ) -> None:
        refuse_inference_mode()
        self.texts = [prompt] if isinstance(prompt, str) else list(prompt)
        self.seed = seed
        self.settings = guidance_settings(self.texts, scale, fields)
        device = torch.device(pipe._execution_device)
        self.vae = PipelineVae(pipe, device)
        load = functools.partial(load_encoder, device=device)
        self.encoders = choose_encoders(self.settings, None, type(pipe).__name__, load)
        decoder_name, image_size = self.settings.guide_decoder or "auto", self.encoders.guiding[0].image_size
        self.decode = latent_decoder(self.vae, decoder_name, image_size)
        self.outputs: list[Any] = []  # of the denoiser, since the last scheduler step
        self.inputs: Mapping[str, Any] = {}  # keyword arguments of the denoiser's last call
        self._gradient: ClipGradient | None = None  # of the current call of the pipeline
        self._timesteps: Tensor | None = None  # of the current call of the pipeline
        self._next_index = 0
        self._scheduler_notes: tuple[Note, ...] = ()

    def forget(self) -> None:
        """Drops what was recorded of an unfinished step."""
        self.outputs, self.inputs = [], {}

    def curve(self, image: int) -> tuple[tuple[int, float], ...]:
        """Returns (step index, cosine similarity to the prompt) of each guided step of an image of the last call."""
        return () if self._gradient is None else self._gradient.curve(self.seed + image)

    def notes(self) -> list[Note]:
        """Returns warnings about the last call: gradients that were not finite, a scheduler that clips x0."""
        return [*([] if self._gradient is None else self._gradient.notes()), *self._scheduler_notes]

    def wrap(self, scheduler: Any) -> Callable[..., Any]:
        """Returns the scheduler's `step` with a correction of x0 before or after it."""
        step = scheduler.step

        @functools.wraps(step)  # pipelines inspect its signature
        def guided_step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **options: Any) -> Any:
            outputs, self.outputs = self.outputs, []
            index = self._step_index(scheduler, timestep)
            gradient = self._gradient = self._gradient or self._build_gradient(len(sample))
            if not gradient.is_active(index, step_count(scheduler)):
                return step(model_output, timestep, sample, *args, **options)
            self._scheduler_notes = (CLIPS_X0,) if scheduler.config.get("clip_sample") else ()

            # 1. What the denoiser predicts, conditional and unconditional. A learned variance is further channels.
            level = noise_level(scheduler, timestep)
            mean, variance = model_output.split([sample.shape[1], model_output.shape[1] - sample.shape[1]], dim=1)
            uncond = unconditional_output(mean, outputs, sample)

            # 2. The correction of x0, in the layout of the sample.
            grid = token_grid(self.inputs, sample.shape[1]) if sample.ndim == 3 else None
            layout = LatentLayout(sample.shape, self.vae.channels, grid)
            correction = gradient(self._state(scheduler, layout, level, index, sample, mean, uncond))
            if correction is None:
                return step(model_output, timestep, sample, *args, **options)
            correction = layout.from_grid(correction * latent_unit(scheduler))

            # 3. Into the model output, or for linear multistep methods into the sample after the step.
            if not corrects_after_step(scheduler):
                mean = inject(mean, correction, level, prediction_type_of(scheduler))
                return step(torch.cat([mean, variance], dim=1), timestep, sample, *args, **options)
            result = step(model_output, timestep, sample, *args, **options)
            return _shift_sample(result, shift_after_step(correction, *step_noise_levels(scheduler, index)))

        return guided_step

    def _step_index(self, scheduler: Any, timestep: Any) -> int:
        """Returns the index of this step in the scheduler's timesteps; new timesteps mean a new call of the pipeline.

        Image-to-image pipelines start in the middle of the timesteps.
        """
        timesteps = scheduler.timesteps
        if timesteps is not self._timesteps:
            self._timesteps, self._gradient = timesteps, None
            first = torch.as_tensor(timestep).flatten()[0].cpu().double()
            self._next_index = int((timesteps.cpu().double() - first).abs().argmin())
        self._next_index += 1
        return self._next_index - 1

    def _state(
        self,
        scheduler: Any,
        layout: LatentLayout,
        level: NoiseLevel,
        index: int,
        sample: Tensor,
        model_output: Tensor,
        uncond: Tensor | None,
    ) -> StepState:
        """Returns the state of step `index` for guidance methods; x0 is in the VAE's unit, x_t in the scheduler's."""
        refuse_inference_mode()
        prediction_type, unit, steps = prediction_type_of(scheduler), latent_unit(scheduler), step_count(scheduler)
        latents = layout.to_grid(sample)  # x_t [B, C, h, w]

        def to_x0(output: Tensor) -> Tensor:
            return recover_x0(layout.to_grid(output), latents, level, prediction_type) / unit

        x0 = to_x0(model_output)
        return StepState(
            latents=latents,
            x0=x0,
            x0_cond=x0,
            x0_uncond=None if uncond is None else to_x0(uncond),
            alpha=level.alpha,
            sigma=level.sigma,
            progress=index / steps,
            index=index,
            steps=steps,
            image_seeds=tuple(self.seed + row for row in range(len(latents))),
        )

    def _build_gradient(self, rows: int) -> ClipGradient:
        """Returns the ClipGradient for a call with this number of images; the images of one prompt are adjacent."""
        if rows % len(self.texts):
            raise SettingsError(
                f"ClipGuidance has {len(self.texts)} prompts, and the pipeline draws {rows} pictures", field="prompt"
            )
        texts = [text for text in self.texts for _ in range(rows // len(self.texts))]
        return build_clip_gradient(self.settings, build_targets(self.encoders, texts, self.settings), self.decode)


def guidance_settings(texts: Sequence[str], scale: float, fields: Mapping[str, Any]) -> Settings:
    """Returns validated settings of guidance `clip`; raises SettingsError, also for fields that ClipGuidance lacks."""
    for name in fields.keys() - {*FIELDS, "clip_models"}:
        raise SettingsError(f"ClipGuidance takes no {name[:60]}. It takes: {', '.join(sorted(FIELDS))}, clip_models.")
    values = {"clip_models": [DEFAULT_CLIP], **fields, "clip_guidance_scale": scale, "guidance": "clip"}
    first, *_ = [Settings.from_dict({**values, "prompt": text}) for text in texts]
    return first.with_defaults(GUIDANCE_DEFAULTS)


def prediction_type_of(scheduler: Any) -> str:
    """Returns what a scheduler takes as model output; raises ModelError if it is unknown."""
    return read_prediction_type({**scheduler.config, "_class_name": type(scheduler).__name__})


def latent_unit(scheduler: Any) -> float:
    """Returns the factor between the scheduler's samples and the VAE's latents: sigma_data, if the scheduler has it."""
    return float(scheduler.config.get("sigma_data", 1.0))


def _shift_sample(result: Any, shift: Tensor) -> Any:
    """Returns the result of a scheduler step, a tuple or an output object, with its sample shifted."""
    if isinstance(result, tuple):
        return (result[0] + shift.to(result[0].dtype), *result[1:])
    result.prev_sample = result.prev_sample + shift.to(result.prev_sample.dtype)
    return result


def restore_step(scheduler: Any, attributes: Mapping[str, Any]) -> None:
    """Restores the scheduler's `step`: that of its class, or that of an outer ClipGuidance in its attributes."""
    del scheduler.step
    if "step" in attributes:
        scheduler.step = attributes["step"]
