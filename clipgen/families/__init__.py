"""Model families: one file each, knowing one architecture and nothing else. This is the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from clipgen.errors import ModelError
from clipgen.families import stable_diffusion
from clipgen.models import Checked, Layout, load, read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from clipgen.clip.score import Scorer

Conditioning = Mapping[str, "Tensor"]  # what a denoiser is told, tensors [B, ...] by the name it takes them under
Embed = Callable[[Any, Any], "Tensor"]  # (tokenizer, text_encoder) -> prompt_embeds [1, T, D] of one prompt


class Family(Protocol):
    """What the flow asks of a loaded model, whatever its architecture.

    `defaults` are Settings fields. `latent_rgb` [C, 3] turns latents into rough colours, -1 to 1; None where there is
    no such matrix. `encode` calls the function it is given once for each of the family's text encoders.
    """

    name: str
    prediction: str
    scheduler_config: Mapping[str, Any]
    defaults: Mapping[str, Any]
    latent_rgb: Tensor | None

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Returns [C, h, w] of the latents of one picture of that size in pixels."""

    def encode(self, embed: Embed) -> Conditioning:
        """Returns what the denoiser is told of one prompt, tensors [1, ...]."""

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """Returns the denoiser's output [B, C, h, w] in float32, for latents as the scheduler scales them."""

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32, 0 to 1 where the decoder keeps to its range."""

    def decodes_fast(self, width: int, height: int) -> bool:
        """Tells whether decoding a picture of that size costs little beside a step."""

    def decoder_to_float32(self) -> bool:
        """Puts the decoder into float32 for good; returns False if it was."""

    def denoiser_to_float32(self) -> bool:
        """Puts denoiser and text encoder into float32 for good; returns False if they were."""


LAYOUTS: dict[str, Layout] = dict.fromkeys(stable_diffusion.LAYOUT.pipeline_classes, stable_diffusion.LAYOUT)
FAMILIES = {"stable_diffusion": stable_diffusion.StableDiffusion}


def load_family(checked: Checked, device: torch.device, dtype: torch.dtype) -> tuple[Family, Scorer | None]:
    """Loads a model that has passed the preflight: its family adapter, and the scorer of its CLIP if it brings one."""
    from clipgen.clip.encoder import ClipEncoder
    from clipgen.clip.score import Scorer, read_captions

    parts = load(checked, device, dtype)
    family = FAMILIES[checked.layout.family](parts, checked.scheduler)
    if "clip" not in parts:
        return family, None
    folder = checked.found.path / "clip"
    preprocessor = folder / "preprocessor_config.json"
    known = read_json(preprocessor) if preprocessor.is_file() else {}
    encoder = ClipEncoder(f"{Path(checked.found.name).name}/clip", parts["clip"], parts["tokenizer"], known)
    return family, Scorer(encoder, read_captions(), folder)


def adopt(pipeline: Any) -> Family:
    """Returns the adapter of a diffusers pipeline that somebody else has loaded; raises ModelError if none fits it."""
    name = type(pipeline).__name__
    if name not in LAYOUTS:
        raise ModelError(f"Pipeline class '{name}' is not supported. Works: {', '.join(LAYOUTS)}.")
    layout = LAYOUTS[name]
    parts = {
        part: getattr(pipeline, part) for part in (*layout.networks, *layout.tokenizers) if part in pipeline.components
    }
    layout.check(parts, {part: {"model_max_length": parts[part].model_max_length} for part in layout.tokenizers})
    config = {**pipeline.scheduler.config, "_class_name": type(pipeline.scheduler).__name__}
    return FAMILIES[layout.family](parts, config)


def stacked(told: Sequence[Conditioning]) -> Conditioning:
    """Joins the conditionings of several pictures, [1, ...] each, to one of [B, ...]."""
    import torch

    return {name: torch.cat([each[name] for each in told]) for name in told[0]}
