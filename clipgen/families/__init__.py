"""Model families: one file each, knowing one architecture and nothing else. This is the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from clipgen.errors import ModelError
from clipgen.families import (
    flux,
    kandinsky_2_2,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
    stable_unclip,
)
from clipgen.families.text_encoders import ImageEmbeds, PromptEmbeds, TextEncoder
from clipgen.models import (
    CheckedModel,
    Layout,
    LoadProgress,
    SizeLimits,
    check_scheduler,
    encoder_of,
    ignore_progress,
    load,
    read_json,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from clipgen.clip.latent_head import LatentHead
    from clipgen.clip.score import Scorer

Conditioning = Mapping[str, "Tensor"]  # what a denoiser is told, tensors [B, ...] by the name it takes them under


class Family(Protocol):
    """What the flow asks of a loaded model, whatever its architecture.

    `text_encoders`, `denoiser` and `vae` are its networks, `defaults` Settings fields, `size_limits` the sizes that its
    pictures may measure. `latent_rgb` [C, 3] turns latents into rough colours, -1 to 1; None where no such matrix is.
    `latent_head` predicts from noisy latents what the model's own CLIP would see; None where a model brings none.
    `see` turns pixels [1, 3, H, W] in [0, 1] into what the denoiser is told of them; None where it can't be told any.
    `distilled` = one pass a step, never an unconditional one: guidance_scale is an input of the denoiser or nothing,
    and negative prompts say nothing.
    """

    name: str
    prediction_type: str
    scheduler_config: Mapping[str, Any]
    defaults: Mapping[str, Any]
    latent_rgb: Tensor | None
    latent_head: LatentHead | None
    encode_image: Callable[[Tensor], ImageEmbeds] | None
    distilled: bool
    text_encoders: Sequence[TextEncoder]
    size_limits: SizeLimits
    denoiser: Any
    vae: Any

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Returns [C, h, w] of the latents of one picture of that size in pixels."""

    def image_seq_len(self, width: int, height: int) -> int:
        """Returns how many places of one picture the denoiser sees: what a schedule shifts by."""

    def sigmas(self, steps: int) -> Sequence[float] | None:
        """Returns the noise levels of so many steps, before any shift, if it wants others than its scheduler's own."""

    def encode(self, embedded: Sequence[PromptEmbeds], blank: bool) -> Conditioning:
        """Returns what the denoiser is told of one prompt, tensors [1, ...]; one `embedded` a tower.

        `blank` = the prompt has no text at all, as a negative prompt that nobody gave.
        """

    def with_guidance_scale(self, conditioning: Conditioning, guidance_scale: float) -> Conditioning:
        """Returns the conditioning with the guidance scale in it where the denoiser takes one, else as it is."""

    def with_image(self, conditioning: Conditioning, seen: Tensor | None, weight: float, seed: int) -> Conditioning:
        """Returns the conditioning of a prompt with a picture in it, by what `see` told; None is no picture.

        `weight` 1 is the picture alone as far as the family can, 0 none of it; `seed` draws noise where it needs some.
        """

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """Returns the denoiser's output [B, C, h, w] in float32, for latents as the scheduler scales them."""

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32, 0 to 1 where the decoder keeps to its range."""

    def decodes_fast(self, width: int, height: int) -> bool:
        """Tells whether decoding a picture of that size costs little beside a step."""

    def decoder_to_float32(self) -> bool:
        """Puts the decoder into float32 for good; returns False if it was."""

    def denoiser_to_float32(self) -> bool:
        """Puts denoiser and text encoders into float32 for good; returns False if they were."""


FAMILIES: dict[str, tuple[Layout, Callable[..., Family]]] = {
    "stable_diffusion": (stable_diffusion.LAYOUT, stable_diffusion.StableDiffusion),
    "stable_diffusion_xl": (stable_diffusion_xl.LAYOUT, stable_diffusion_xl.StableDiffusionXL),
    "stable_diffusion_3": (stable_diffusion_3.LAYOUT, stable_diffusion_3.StableDiffusion3),
    "flux": (flux.LAYOUT, flux.Flux),
    "kandinsky_2_2": (kandinsky_2_2.LAYOUT, kandinsky_2_2.Kandinsky22),
    "stable_unclip": (stable_unclip.LAYOUT, stable_unclip.StableUnclip),
}
LAYOUTS: dict[str, Layout] = {name: layout for layout, _ in FAMILIES.values() for name in layout.pipeline_classes}


COLOURS = {  # by how the names of its pipelines begin, the longest first
    "StableDiffusionXL": stable_diffusion_xl.LATENT_RGB,
    "StableDiffusion3": (),
    "StableDiffusion": stable_diffusion.LATENT_RGB,
}


def latent_rgb_matrix(pipeline_class: str, channels: int) -> Tensor | None:
    """Returns the matrix [C, 3] from latents to colours of any pipeline of a family, None where none is known."""
    import torch

    found = next((matrix for start, matrix in COLOURS.items() if pipeline_class.startswith(start)), ())
    return torch.tensor(found) if found and len(found) == channels else None


def make_family(
    layout: Layout, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
) -> Family:
    """Returns the adapter of loaded networks and tokenizers; `index` is model_index.json or a pipeline's config."""
    _, adapter = FAMILIES[layout.family]
    return adapter(parts, scheduler_config, index)


def load_family(
    checked: CheckedModel, device: torch.device, dtype: torch.dtype, progress: LoadProgress = ignore_progress
) -> tuple[Family, Scorer | None]:
    """Loads a model that has passed the preflight: its family adapter, and the scorer of its CLIP if it brings one."""
    from clipgen.clip.encoder import ClipEncoder
    from clipgen.clip.score import Scorer, read_captions

    parts, scorer = {**load(checked, device, dtype, progress), **checked.config_components}, None
    if "clip" in parts:
        folder = checked.found.path / "clip"
        preprocessor = folder / "preprocessor_config.json"
        known = read_json(preprocessor) if preprocessor.is_file() else {}
        encoder = ClipEncoder(f"{Path(checked.found.name).name}/clip", parts["clip"], parts["tokenizer"], known)
        parts["encoder"], scorer = encoder, Scorer(encoder, read_captions(), folder)
    return make_family(checked.layout, parts, checked.scheduler, checked.index), scorer


def family_from_pipeline(pipeline: Any) -> Family:
    """Returns the adapter of a diffusers pipeline that somebody else has loaded; raises ModelError if none fits it."""
    name = type(pipeline).__name__
    if name not in LAYOUTS:
        raise ModelError(f"Pipeline class '{name}' is not supported. Works: {', '.join(LAYOUTS)}.")
    layout, config = LAYOUTS[name], dict(pipeline.scheduler.config)
    scheduler = {**config, "_class_name": type(pipeline.scheduler).__name__}
    parts = _parts(pipeline, layout)
    lengths = {name: parts[name].model_max_length for name in layout.tokenizers if name in parts}
    check_scheduler(scheduler, layout)
    layout.check(parts, {name: {"model_max_length": length} for name, length in lengths.items()})
    return make_family(layout, parts, scheduler, pipeline.config)


def _parts(pipeline: Any, layout: Layout) -> dict[str, Any]:
    """Returns a pipeline's networks and the tokenizers of its text encoders; raises ModelError if one is missing."""
    known = pipeline.components
    parts = {name: known[name] for name in layout.networks if known.get(name) is not None}
    tokenizers = [name for name in layout.tokenizers if encoder_of(name) in parts]
    required = [name for name, part in layout.networks.items() if part.required]
    if missing := [name for name in (*required, *tokenizers, *layout.config_components) if known.get(name) is None]:
        raise ModelError(f"{type(pipeline).__name__} has no {missing[0]}.")
    return {**parts, **{name: known[name] for name in tokenizers}, **_config_components(known, layout)}


def _config_components(components: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """Returns the configs of a pipeline's components that are nothing else."""
    return {
        name: dict(part.config) if isinstance(getattr(part, "config", None), Mapping) else part.to_dict()
        for name, part in ((name, components[name]) for name in layout.config_components)
    }


def stack_conditionings(told: Sequence[Conditioning]) -> Conditioning:
    """Joins the conditionings of several pictures, [1, ...] each, to one of [B, ...]."""
    import torch

    return {name: torch.cat([each[name] for each in told]) for name in told[0]}


def repeat_conditioning(told: Conditioning, rows: int) -> Conditioning:
    """Returns a conditioning of fewer rows, each repeated for its picture's candidates, who follow each other."""
    return {name: tensor.repeat_interleave(rows // len(tensor), dim=0) for name, tensor in told.items()}
