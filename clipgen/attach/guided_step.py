"""One guided step on a diffusers pipeline: the correction of x0 that CLIP asks for, in the shape of the latents."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clipgen.attach.latent_layout import LatentLayout
from clipgen.attach.pipeline_vae import PipelineVae
from clipgen.attach.refusals import refuse_inference_mode
from clipgen.errors import SettingsError
from clipgen.guidance.build import build_clip_gradient
from clipgen.guidance.clip_gradient import ClipGradient
from clipgen.guidance.latent_decoder import latent_decoder
from clipgen.guidance.targets import build_targets, choose_encoders
from clipgen.models.load_clip import load_encoder
from clipgen.sampling.loop import StepState
from clipgen.sampling.prediction import NoiseLevel, read_prediction_type, recover_x0
from clipgen.settings.settings import GUIDANCE_DEFAULTS, Settings

DEFAULT_CLIP = "openai/clip-vit-base-patch32"  # downloaded at the first use
FIELDS = ("cutouts", "guidance_start", "guidance_stop", "guidance_every", "guide_decoder", "guard", "guide", "like")


class PipelineGuidance:
    """The CLIPs, the VAE and the settings that guide one pipeline.

    Args:
        pipe: a pipeline with a scheduler and a VAE.
        prompt: what the images should show, one text, or one per prompt of the pipeline call.
        scale: clip_guidance_scale, 0 to 1.
        seed: image k draws its views from seed + k.
        fields: Settings fields out of FIELDS, and clip_models.

    Raises SettingsError, ModelError, ModelNotFound.
    """

    def __init__(self, pipe: Any, prompt: str | Sequence[str], scale: float, seed: int, fields: Mapping[str, Any]) -> None:
        self.texts = [prompt] if isinstance(prompt, str) else list(prompt)
        self.seed = seed
        self.settings = guidance_settings(self.texts, scale, fields)
        device = torch.device(pipe._execution_device)
        self.vae = PipelineVae(pipe, device)
        load = functools.partial(load_encoder, device=device)
        self.encoders = choose_encoders(self.settings, None, type(pipe).__name__, load)
        decoder_name, image_size = self.settings.guide_decoder or "auto", self.encoders.guiding[0].image_size
        self.decode = latent_decoder(self.vae, decoder_name, image_size)
        self._gradient: ClipGradient | None = None  # of the current call of the pipeline

    def start_run(self) -> None:
        """Begins a new call of the pipeline, which may have another number of images."""
        self._gradient = None

    def curve(self, image: int) -> tuple[tuple[int, float], ...]:
        """Returns (step index, cosine similarity to the prompt) of each guided step of an image of the last call."""
        return () if self._gradient is None else self._gradient.curve(self.seed + image)

    def is_active(self, index: int, steps: int, rows: int) -> bool:
        """Tells whether step `index` of `steps` is guided; `rows` is the number of images of the call."""
        self._gradient = self._gradient or self._build_gradient(rows)
        return self._gradient.is_active(index, steps)

    def correction(
        self,
        scheduler: Any,
        model_output: Tensor,
        uncond: Tensor | None,
        sample: Tensor,
        layout: LatentLayout,
        level: NoiseLevel,
        index: int,
        steps: int,
    ) -> Tensor | None:
        """Returns the correction of x0, in the layout of the latents, in float32; None if this step is not guided.

        `model_output` is that after classifier-free guidance, `uncond` its unconditional part, None if there is none.
        All of them and the sample have the same layout.
        """
        refuse_inference_mode()
        prediction_type, unit = prediction_type_of(scheduler), latent_unit(scheduler)
        latents = layout.to_grid(sample)  # x_t [B, C, h, w]

        def to_x0(output: Tensor) -> Tensor:
            return recover_x0(layout.to_grid(output), latents, level, prediction_type) / unit

        if not self.is_active(index, steps, len(latents)):
            return None
        assert self._gradient is not None
        x0 = to_x0(model_output)
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
        correction = self._gradient(state)
        return None if correction is None else layout.from_grid(correction * unit)

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
