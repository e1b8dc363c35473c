"""ClipGuidance: CLIP guidance for any diffusers pipeline, as a context manager.

    with ClipGuidance(pipe, "a fox in snow", scale=0.3):
        image = pipe("a fox in snow").images[0]

It replaces `scheduler.step`, which every pipeline calls once per step: the new one corrects the model output, then
calls the original. A forward hook on the denoiser records the outputs of both halves of classifier-free guidance.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from clipgen.errors import ModelError, SettingsError
from clipgen.families import latent_rgb_matrix
from clipgen.families.flux import PATCH, pack_latents, unpack_latents
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.guidance.build import build_clip_gradient
from clipgen.guidance.clip_gradient import ClipGradient
from clipgen.guidance.latent_decoder import latent_decoder
from clipgen.guidance.targets import build_targets, choose_encoders
from clipgen.models import SizeLimits
from clipgen.models.load_clip import load_encoder
from clipgen.sampling.loop import StepState
from clipgen.sampling.prediction import (
    NoiseLevel,
    corrects_after_step,
    inject,
    noise_level,
    recover_x0,
    shift_after_step,
    step_noise_levels,
)
from clipgen.settings.settings import GUIDANCE_DEFAULTS, Settings

DEFAULT_CLIP = "openai/clip-vit-base-patch32"  # downloaded at the first use
DENOISERS = ("unet", "transformer")  # names of pipeline components
FIELDS = ("cutouts", "guidance_start", "guidance_stop", "guidance_every", "guide_decoder", "guard", "guide", "like")


class ClipGuidance:
    """Guides all images that a diffusers pipeline generates while the context is open, then restores the pipeline.

    Args:
        pipe: a text-to-image, image-to-image or inpainting pipeline with a scheduler, a VAE and a `unet` or
            `transformer`.
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
        self.pipe = pipe
        self.texts = [prompt] if isinstance(prompt, str) else list(prompt)
        self.seed = seed
        self.settings = guidance_settings(self.texts, scale, fields)
        self.denoiser = find_denoiser(pipe)
        device = torch.device(pipe._execution_device)
        self.model = VaeCopy(pipe, device)
        load = functools.partial(load_encoder, device=device)
        self.encoders = choose_encoders(self.settings, None, type(pipe).__name__, load)
        decoder_name, image_size = self.settings.guide_decoder or "auto", self.encoders.guiding[0].image_size
        self.decode = latent_decoder(self.model, decoder_name, image_size)
        self._outputs: list[Tensor] = []  # of the denoiser, since the last scheduler step
        self._unpacked_size: tuple[int, int] | None = None  # height and width of packed latents (Flux)
        self._timesteps: Tensor | None = None  # of the current call of the pipeline
        self._next_index = 0
        self._gradient: ClipGradient | None = None  # of the current call of the pipeline
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        refuse_inference_mode()
        scheduler, attributes = self.pipe.scheduler, dict(vars(self.pipe.scheduler))
        scheduler.step = self._with_guidance(scheduler.step)
        hook = self.denoiser.register_forward_hook(self._record_output, with_kwargs=True)
        self._undo = [hook.remove, functools.partial(_restore_step, scheduler, attributes)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for undo in self._undo:
            undo()
        self._undo, self._outputs = [], []

    def curve(self, image: int = 0) -> tuple[tuple[int, float], ...]:
        """Returns (step index, cosine similarity to the prompt) of each guided step of an image of the last call."""
        return () if self._gradient is None else self._gradient.curve(self.seed + image)

    def _record_output(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook: records the output of the denoiser, and the size of packed latents from their image ids."""
        self._outputs.append(output[0].detach())
        if (img_ids := kwargs.get("img_ids")) is not None:
            rows, columns = (int(img_ids[..., axis].max()) + 1 for axis in (1, 2))
            self._unpacked_size = rows * PATCH, columns * PATCH

    def _with_guidance(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a scheduler's `step` that corrects x0."""

        @functools.wraps(step)  # pipelines inspect its signature
        def guided_step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **options: Any) -> Any:
            scheduler = self.pipe.scheduler
            level, index = noise_level(scheduler, timestep), self._step_index(timestep)
            outputs, self._outputs = self._outputs, []
            correction = self._correction(model_output, sample, outputs, level, index)
            if correction is None:
                return step(model_output, timestep, sample, *args, **options)
            correction = pack_latents(correction) if sample.ndim == 3 else correction  # as the sample: [B, L, 4 C]
            if not corrects_after_step(scheduler):
                model_output = inject(model_output, correction, level, self.model.prediction_type)
                return step(model_output, timestep, sample, *args, **options)
            result = step(model_output, timestep, sample, *args, **options)
            return _shift_sample(result, shift_after_step(correction, *step_noise_levels(scheduler, index)))

        return guided_step

    def _step_index(self, timestep: Any) -> int:
        """Returns the index of this step in the scheduler's timesteps; new timesteps mean a new call of the pipeline.

        Image-to-image pipelines start in the middle of the timesteps.
        """
        timesteps = self.pipe.scheduler.timesteps
        if timesteps is not self._timesteps:
            self._timesteps, self._gradient = timesteps, None
            self._next_index = int((timesteps == timestep).nonzero()[0])
        self._next_index += 1
        return self._next_index - 1

    def _correction(
        self, model_output: Tensor, sample: Tensor, outputs: Sequence[Tensor], level: NoiseLevel, index: int
    ) -> Tensor | None:
        """Returns the correction of x0 [B, C, h, w] in float32, None if this step is not guided.

        `model_output` is that after classifier-free guidance, `outputs` are those of the denoiser before it.
        """
        refuse_inference_mode()
        latents, steps = self._unpack(sample), len(self.pipe.scheduler.timesteps)  # x_t [B, C, h, w]

        def to_x0(output: Tensor) -> Tensor:
            return recover_x0(self._unpack(output), latents, level, self.model.prediction_type)

        gradient = self._gradient = self._gradient or self._build_gradient(len(latents))
        if not gradient.is_active(index, steps):
            return None
        x0, uncond = to_x0(model_output), unconditional_output(outputs, len(latents))
        state = StepState(
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
        return gradient(state)

    def _build_gradient(self, rows: int) -> ClipGradient:
        """Returns the ClipGradient for a call with this number of images; the images of one prompt are adjacent."""
        if rows % len(self.texts):
            raise SettingsError(
                f"ClipGuidance has {len(self.texts)} prompts, and the pipeline draws {rows} pictures", field="prompt"
            )
        texts = [text for text in self.texts for _ in range(rows // len(self.texts))]
        return build_clip_gradient(self.settings, build_targets(self.encoders, texts, self.settings), self.decode)

    def _unpack(self, latents: Tensor) -> Tensor:
        """Returns latents [B, C, h, w] in float32, of latents of this shape or packed ones [B, L, 4 C]."""
        if latents.ndim == 4:
            return latents.float()
        assert self._unpacked_size is not None, "denoisers of packed latents get img_ids"
        return unpack_latents(latents, *self._unpacked_size).float()


class VaeCopy(LatentFamily):
    """A model family with a copy of a pipeline's VAE.

    The original may be offloaded, where each decoding would swap it with the denoiser, and its memory format must stay.
    """

    def __init__(self, pipe: Any, device: torch.device) -> None:
        from accelerate.hooks import remove_hook_from_module

        vae = remove_hook_from_module(copy.deepcopy(pipe.vae), recurse=True).to(device)
        config = {**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__}
        super().__init__(find_denoiser(pipe), vae, [], SizeLimits(vae_scale_factor(vae)), config)
        self.latent_rgb = latent_rgb_matrix(type(pipe).__name__, vae.config.latent_channels)


def guidance_settings(texts: Sequence[str], scale: float, fields: dict[str, Any]) -> Settings:
    """Returns validated settings of guidance `clip`; raises SettingsError, also for fields that ClipGuidance lacks."""
    for name in fields.keys() - {*FIELDS, "clip_models"}:
        raise SettingsError(f"ClipGuidance takes no {name[:60]}. It takes: {', '.join(sorted(FIELDS))}, clip_models.")
    values = {"clip_models": [DEFAULT_CLIP], **fields, "clip_guidance_scale": scale, "guidance": "clip"}
    first, *_ = [Settings.from_dict({**values, "prompt": text}) for text in texts]
    return first.with_defaults(GUIDANCE_DEFAULTS)


def find_denoiser(pipe: Any) -> Any:
    """Returns the denoiser of a pipeline; raises ModelError for a pipeline without one."""
    for name in DENOISERS:
        if (denoiser := pipe.components.get(name)) is not None:
            return denoiser
    raise ModelError(f"{type(pipe).__name__} has no {' or '.join(DENOISERS)}.")


def unconditional_output(outputs: Sequence[Tensor], rows: int) -> Tensor | None:
    """Returns the unconditional one of a step's denoiser outputs, None if there is none.

    Pipelines either run one batch of 2B rows, the unconditional half first, or two calls, the unconditional one last.
    """
    if len(outputs) == 1 and len(outputs[0]) == 2 * rows:
        return outputs[0][:rows]
    return outputs[1] if len(outputs) == 2 and len(outputs[1]) == rows else None


def refuse_inference_mode() -> None:
    """Raises SettingsError under torch.inference_mode."""
    if torch.is_inference_mode_enabled():
        raise SettingsError("ClipGuidance needs gradients, which torch.inference_mode forbids. Use torch.no_grad.")


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
