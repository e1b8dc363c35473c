"""ClipGuidance: clipgen's guidance by CLIP's gradient on a diffusers pipeline that somebody else has built.

It wraps `scheduler.step`, through which every ordinary pipeline goes, and looks over the denoiser's shoulder.
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
from clipgen.families.flux import PATCH, pack, unpack
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.guidance.build import build_clip_gradient
from clipgen.guidance.clip_gradient import ClipGradient
from clipgen.guidance.latent_decoder import latent_decoder
from clipgen.guidance.targets import choose_encoders
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

CLIP = "openai/clip-vit-base-patch32"  # guides where nobody names another; of the hub, fetched once
DENOISERS = ("unet", "transformer")


class ClipGuidance:
    """Guides every picture that a diffusers pipeline draws while this context is open, and leaves it as it was.

    `pipe` is any text-to-image, image-to-image or inpainting pipeline with a scheduler, a VAE and a `unet` or
    `transformer`; `prompt` what the pictures are to look like to CLIP, one text or one a prompt of the call. `scale` is
    clip_guidance_scale; further fields are those of Settings: cutouts, guidance_start, guidance_stop, guidance_every,
    guide_decoder, guard (two-key), guide, like, clip_models. Picture k draws its views from `seed` + k. Raises
    SettingsError, ModelError, ModelNotFound.
    """

    def __init__(
        self, pipe: Any, prompt: str | Sequence[str], *, scale: float = 0.25, seed: int = 0, **fields: Any
    ) -> None:
        self.pipe = pipe
        self.texts = [prompt] if isinstance(prompt, str) else list(prompt)
        self.seed = seed
        self.settings = settings_of(self.texts, scale, fields)
        self.denoiser = denoiser_of(pipe)
        device = torch.device(pipe._execution_device)
        self.family = Outside(pipe, device)
        self.encoders = choose_encoders(
            self.settings, None, type(pipe).__name__, functools.partial(load_encoder, device=device)
        )
        latent_decoder(self.family, self.settings.guide_decoder or "auto", self.encoders.guides[0].image_size)
        self._outputs: list[Tensor] = []
        self._shape: tuple[int, int] | None = None  # of packed latents, before they were packed
        self._timesteps: Tensor | None = None
        self._next = 0
        self._gradient: ClipGradient | None = None
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        refuse_inference_mode()
        scheduler, before = self.pipe.scheduler, dict(vars(self.pipe.scheduler))
        scheduler.step = self._wrapped(scheduler.step)
        hook = self.denoiser.register_forward_hook(self._overhear, with_kwargs=True)
        self._undo = [hook.remove, functools.partial(_restore_step, scheduler, before)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for undo in self._undo:
            undo()
        self._undo, self._outputs = [], []

    def curve(self, image: int = 0) -> tuple[tuple[int, float], ...]:
        """Returns the guided steps of a picture of the last call, each with CLIP's similarity to its prompt."""
        return () if self._gradient is None else self._gradient.curve(self.seed + image)

    def _overhear(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Keeps what the denoiser said since the last step, and which places packed latents have."""
        self._outputs.append(output[0].detach())
        if (places := kwargs.get("img_ids")) is not None:
            rows, columns = (int(places[..., axis].max()) + 1 for axis in (1, 2))
            self._shape = rows * PATCH, columns * PATCH

    def _wrapped(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a scheduler's step with the correction of x0 in it."""

        @functools.wraps(step)
        def guided(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **options: Any) -> Any:
            scheduler = self.pipe.scheduler
            level, index = noise_level(scheduler, timestep), self._index(timestep)
            outputs, self._outputs = self._outputs, []
            correction = self._correction(model_output, sample, outputs, level, index)
            if correction is None:
                return step(model_output, timestep, sample, *args, **options)
            correction = pack(correction) if sample.ndim == 3 else correction
            if not corrects_after_step(scheduler):
                output = inject(model_output, correction, level, self.family.prediction_type)
                return step(output, timestep, sample, *args, **options)
            result = step(model_output, timestep, sample, *args, **options)
            return _shifted(result, shift_after_step(correction, *step_noise_levels(scheduler, index)))

        return guided

    def _index(self, timestep: Any) -> int:
        """Returns how many steps of the schedule lie before this one; a new schedule is a new call of the pipeline."""
        timesteps = self.pipe.scheduler.timesteps
        if timesteps is not self._timesteps:
            self._timesteps, self._gradient = timesteps, None
            self._next = int((timesteps == timestep).nonzero()[0])
        self._next += 1
        return self._next - 1

    def _correction(
        self, output: Tensor, sample: Tensor, outputs: Sequence[Tensor], level: NoiseLevel, index: int
    ) -> Tensor | None:
        """Returns what to add to x0, [B, C, h, w] in float32, None where this step is not guided."""
        refuse_inference_mode()
        latents, steps = self._unpacked(sample), len(self.pipe.scheduler.timesteps)

        def x0_of(said: Tensor) -> Tensor:
            return recover_x0(self._unpacked(said), latents, level, self.family.prediction_type)

        gradient = self._gradient = self._gradient or self._begun(len(latents))
        if not gradient.active(index, steps):
            return None
        x0, uncond = x0_of(output), unconditional(outputs, len(latents))
        seeds = tuple(self.seed + row for row in range(len(latents)))
        moment = StepState(
            latents=latents,
            x0=x0,
            x0_cond=x0,
            x0_uncond=None if uncond is None else x0_of(uncond),
            alpha=level.alpha,
            sigma=level.sigma,
            progress=index / steps,
            index=index,
            steps=steps,
            image_seeds=seeds,
        )
        return gradient(moment)

    def _begun(self, rows: int) -> ClipGradient:
        """Returns the gradient for so many pictures: those of one prompt follow each other."""
        if rows % len(self.texts):
            raise SettingsError(
                f"ClipGuidance has {len(self.texts)} prompts, and the pipeline draws {rows} pictures", field="prompt"
            )
        texts = [text for text in self.texts for _ in range(rows // len(self.texts))]
        return build_clip_gradient(self.settings, self.encoders, self.family, texts)

    def _unpacked(self, latents: Tensor) -> Tensor:
        """Returns latents [B, C, h, w] in float32, whether or not they come packed as [B, L, 4 C]."""
        if latents.ndim == 4:
            return latents.float()
        assert self._shape is not None, "a denoiser of packed latents is told their places"
        return unpack(latents, *self._shape).float()


class Outside(LatentFamily):
    """The decoder of a pipeline as a family's, in a copy: it may be offloaded there, and must stay as it was."""

    def __init__(self, pipe: Any, device: torch.device) -> None:
        from accelerate.hooks import remove_hook_from_module

        vae = remove_hook_from_module(copy.deepcopy(pipe.vae), recurse=True).to(device)
        config = {**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__}
        super().__init__(denoiser_of(pipe), vae, [], SizeLimits(vae_scale_factor(vae)), config)
        self.latent_rgb = latent_rgb_matrix(type(pipe).__name__, vae.config.latent_channels)


def settings_of(texts: Sequence[str], scale: float, fields: dict[str, Any]) -> Settings:
    """Returns checked settings of a guidance; raises SettingsError, also for fields that a pipeline decides."""
    own = {"clip_models": [CLIP], **fields, "clip_guidance_scale": scale}
    known = {"cutouts", "guidance_start", "guidance_stop", "guidance_every", "guide_decoder", "guard", "guide", "like"}
    for name in own.keys() - known - {"clip_models", "clip_guidance_scale"}:
        raise SettingsError(f"ClipGuidance takes no {name[:60]}. It takes: {', '.join(sorted(known))}, clip_models.")
    one = [Settings.from_dict({**own, "prompt": text, "guidance": "clip"}) for text in texts]
    return one[0].with_defaults(GUIDANCE_DEFAULTS)


def denoiser_of(pipe: Any) -> Any:
    """Returns a pipeline's denoiser; raises ModelError for a pipeline without one."""
    for name in DENOISERS:
        if (found := pipe.components.get(name)) is not None:
            return found
    raise ModelError(f"{type(pipe).__name__} has no {' or '.join(DENOISERS)}.")


def unconditional(outputs: Sequence[Tensor], rows: int) -> Tensor | None:
    """Returns of what a denoiser said in one step the half without a prompt, None where it said none.

    Pipelines ask for both halves at once, the unconditional first, or for one after the other, it last.
    """
    if len(outputs) == 1 and len(outputs[0]) == 2 * rows:
        return outputs[0][:rows]
    return outputs[1] if len(outputs) == 2 and len(outputs[1]) == rows else None


def refuse_inference_mode() -> None:
    """Raises SettingsError where no gradient can be had at all."""
    if torch.is_inference_mode_enabled():
        raise SettingsError("ClipGuidance needs gradients, which torch.inference_mode forbids. Use torch.no_grad.")


def _restore_step(scheduler: Any, before: dict[str, Any]) -> None:
    """Gives a scheduler back the step it had: its class's own, or another guidance's."""
    del scheduler.step
    if "step" in before:
        scheduler.step = before["step"]


def _shifted(result: Any, shift: Tensor) -> Any:
    """Returns a step's result with its sample moved."""
    if isinstance(result, tuple):
        return (result[0] + shift.to(result[0].dtype), *result[1:])
    result.prev_sample = result.prev_sample + shift.to(result.prev_sample.dtype)
    return result
