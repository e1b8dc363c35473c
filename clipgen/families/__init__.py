"""Model families: one adapter per architecture, and the table of all adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from clipgen.errors import ModelError
from clipgen.families import (
    chroma,
    flux,
    flux_2_klein,
    kandinsky_2_2,
    latent_consistency,
    qwen_image,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
    stable_unclip,
    z_image,
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
    load_components,
    read_json,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from clipgen.clip.latent_head import LatentHead
    from clipgen.clip.score import Scorer

VAES = ("vae", "movq")  # their names in the layouts
Conditioning = Mapping[str, "Tensor"]  # the denoiser's conditioning inputs, tensors [B, ...] by parameter name


class Family(Protocol):
    """The interface of a loaded model, the same for every architecture.

    Attributes:
        prediction_type: what the denoiser predicts: epsilon, v_prediction, sample or flow.
        defaults: Settings fields that the model recommends.
        latent_rgb: a matrix [C, 3] from latents to approximate RGB, -1 to 1; None if there is none for the model.
        latent_head: predicts CLIP image features from noisy latents; None if the model has none.
        encode_image: turns pixels [1, 3, H, W] in [0, 1] into conditioning; None if the model takes no image.
        distilled: guidance was distilled into the denoiser: one pass per step, no negative prompt, and guidance_scale
            is an input of the denoiser or ignored.
        size_limits: the image sizes that the model can generate.
        text_encoders_wait: the text encoders wait in CPU memory and go to the device only to encode.
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
    text_encoders_wait: bool
    denoiser: Any
    vae: Any

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Returns the shape [C, h, w] of the latents of one image; `width` and `height` are in pixels."""

    def image_seq_len(self, width: int, height: int) -> int:
        """Returns the number of positions that the denoiser processes for one image; flow schedules shift by it."""

    def sigmas(self, steps: int) -> Sequence[float] | None:
        """Returns the noise levels of `steps` steps before any shift, or None to use the scheduler's own."""

    def shift_mu(self, width: int, height: int, steps: int) -> float | None:
        """Returns mu of the dynamic shift of the noise levels, or None to take it from the scheduler's config."""

    def cfg_scale(self, guidance_scale: float) -> float:
        """Returns s of uncond + s (cond - uncond) for the setting guidance_scale; up to 1 there is no guidance."""

    def rescale_guided(self, guided: Tensor, cond: Tensor) -> Tensor:
        """Returns a model output under classifier-free guidance as the model's own pipeline rescales it."""

    def encode(self, embeds: Sequence[PromptEmbeds], is_empty: bool) -> Conditioning:
        """Returns the conditioning of one prompt, tensors [1, ...], from one PromptEmbeds per text encoder.

        `is_empty`: the prompt is the empty string, as a negative prompt is by default.
        """

    def with_guidance_scale(self, conditioning: Conditioning, guidance_scale: float) -> Conditioning:
        """Returns the conditioning with the guidance scale added if the denoiser takes it as an input."""

    def with_image(
        self, conditioning: Conditioning, image_embeds: Tensor | None, weight: float, seed: int
    ) -> Conditioning:
        """Returns a prompt's conditioning with an image added, from the embeds of `encode_image`; None is no image.

        `weight` 0 to 1 is the strength of the image. `seed` is for families that add noise to the embeds.
        """

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """Returns the model output [B, C, h, w] in float32, for latents [B, C, h, w] scaled by the scheduler."""

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32, about 0 to 1, of latents [B, C, h, w]."""

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in [0, 1] encoded with the VAE and decoded again."""

    def decodes_fast(self, width: int, height: int) -> bool:
        """Tells whether decoding an image of this size takes little time compared with a step."""

    def decoder_to_float32(self) -> bool:
        """Converts the decoder to float32 permanently; returns False if it was float32 already."""

    def tile_decoder(self) -> bool:
        """Makes the VAE decode large images in tiles, permanently; returns False if it does so already or cannot."""

    def widen_denoiser(self) -> torch.dtype | None:
        """Converts denoiser and text encoders to a dtype of wider range permanently.

        Returns the new dtype, bfloat16 after float16 and else float32; None if it was float32 already.
        """


FAMILIES: dict[str, tuple[Layout, Callable[..., Family]]] = {
    "stable_diffusion": (stable_diffusion.LAYOUT, stable_diffusion.StableDiffusion),
    "latent_consistency": (latent_consistency.LAYOUT, latent_consistency.LatentConsistency),
    "stable_diffusion_xl": (stable_diffusion_xl.LAYOUT, stable_diffusion_xl.StableDiffusionXL),
    "stable_diffusion_3": (stable_diffusion_3.LAYOUT, stable_diffusion_3.StableDiffusion3),
    "flux": (flux.LAYOUT, flux.Flux),
    "flux_2_klein": (flux_2_klein.LAYOUT, flux_2_klein.Flux2Klein),
    "chroma": (chroma.LAYOUT, chroma.Chroma),
    "qwen_image": (qwen_image.LAYOUT, qwen_image.QwenImage),
    "z_image": (z_image.LAYOUT, z_image.ZImage),
    "kandinsky_2_2": (kandinsky_2_2.LAYOUT, kandinsky_2_2.Kandinsky22),
    "stable_unclip": (stable_unclip.LAYOUT, stable_unclip.StableUnclip),
}
LAYOUTS: dict[str, Layout] = {name: layout for layout, _ in FAMILIES.values() for name in layout.pipeline_classes}


LATENT_RGB = {  # by prefix of the pipeline's class name, the longest prefix first
    "StableDiffusionXL": stable_diffusion_xl.LATENT_RGB,
    "StableDiffusion3": (),
    "StableDiffusion": stable_diffusion.LATENT_RGB,
}


def latent_rgb_matrix(pipeline_class: str, channels: int) -> Tensor | None:
    """Returns the matrix [C, 3] from latents to approximate RGB for a diffusers pipeline class, None if unknown."""
    import torch

    matrix = next((rows for prefix, rows in LATENT_RGB.items() if pipeline_class.startswith(prefix)), ())
    return torch.tensor(matrix) if matrix and len(matrix) == channels else None


def make_family(
    layout: Layout, components: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
) -> Family:
    """Returns the adapter of loaded networks and tokenizers; `index` is model_index.json or a pipeline's config."""
    _, adapter = FAMILIES[layout.family]
    return adapter(components, scheduler_config, index)


def load_family(
    checked: CheckedModel, device: torch.device, dtype: torch.dtype, progress: LoadProgress = ignore_progress
) -> tuple[Family, Scorer | None]:
    """Loads a model that has passed the preflight; returns its adapter and, if it includes a CLIP, a scorer."""
    import torch

    from clipgen.clip.encoder import ClipEncoder
    from clipgen.clip.score import Scorer, read_captions

    networks = load_components(checked, device, dtype, progress)
    if "unet" in networks and dtype != torch.float32:
        networks["unet"].to(memory_format=torch.channels_last)  # half precision convolutions are faster so
    components = {**networks, **checked.config_components}
    scorer = None
    if "clip" in components:
        folder = checked.source.path / "clip"
        path = folder / "preprocessor_config.json"
        preprocessor = read_json(path) if path.is_file() else {}
        name = f"{Path(checked.source.name).name}/clip"
        encoder = ClipEncoder(name, components["clip"], components["tokenizer"], preprocessor)
        components["clip_encoder"], scorer = encoder, Scorer(encoder, read_captions(), folder)
    family = make_family(checked.layout, components, checked.scheduler, checked.index)
    family.text_encoders_wait = any(encoder.model.device.type != device.type for encoder in family.text_encoders)
    return family, scorer


def family_from_pipeline(pipeline: Any) -> Family:
    """Returns the adapter of a loaded diffusers pipeline, which stays as it is.

    Raises ModelError if its class, or the class of its scheduler, is not supported.
    """
    name = type(pipeline).__name__
    if name not in LAYOUTS:
        raise ModelError(f"Pipeline class '{name}' is not supported. Works: {', '.join(LAYOUTS)}.")
    scheduler_class = type(pipeline.scheduler).__name__
    if scheduler_class not in LAYOUTS[name].schedulers:
        works = ", ".join(LAYOUTS[name].schedulers)
        raise ModelError(f"Scheduler '{scheduler_class}' is not supported with {name}. Works: {works}.")
    layout, config = LAYOUTS[name], dict(pipeline.scheduler.config)
    scheduler = {**config, "_class_name": type(pipeline.scheduler).__name__}
    components = _components(pipeline, layout)
    lengths = {name: components[name].model_max_length for name in layout.tokenizers if name in components}
    check_scheduler(scheduler, layout)
    layout.check(components, {name: {"model_max_length": length} for name, length in lengths.items()})
    for vae in (name for name in VAES if name in components):
        components[vae].to(pipeline._execution_device)
    return make_family(layout, components, scheduler, pipeline.config)


def _components(pipeline: Any, layout: Layout) -> dict[str, Any]:
    """Returns a pipeline's networks, tokenizers and component configs; raises ModelError if one is missing."""
    components = pipeline.components
    networks = {name: _network(name, components[name]) for name in layout.networks if components.get(name) is not None}
    tokenizers = [name for name in layout.tokenizers if encoder_of(name) in networks]
    required = [name for name, spec in layout.networks.items() if spec.required]
    expected = (*required, *tokenizers, *layout.config_components)
    if missing := [name for name in expected if components.get(name) is None]:
        raise ModelError(f"{type(pipeline).__name__} has no {missing[0]}.")
    return {
        **networks,
        **{name: components[name] for name in tokenizers},
        **{name: _config(components[name]) for name in layout.config_components},
    }


def _network(name: str, network: Any) -> Any:
    """Returns a pipeline's network in a form that may change without changing the pipeline.

    It shares the weights, until it is converted. Offloaded and compiled networks are used as they are; not the VAE,
    which decodes previews in between, and is small.
    """
    from clipgen.models.without_hooks import is_wrapped, without_hooks

    return network if name not in VAES and is_wrapped(network) else without_hooks(network)


def _config(component: Any) -> dict[str, Any]:
    """Returns the config of a diffusers or transformers component."""
    return dict(component.config) if isinstance(getattr(component, "config", None), Mapping) else component.to_dict()


def stack_conditionings(conditionings: Sequence[Conditioning]) -> Conditioning:
    """Joins the conditionings of several images, [1, ...] each, into one of [B, ...]."""
    return {name: join_rows([each[name] for each in conditionings]) for name in conditionings[0]}


def join_rows(tensors: Sequence[Tensor]) -> Tensor:
    """Returns tensors [B, ...] joined along the first axis, padded with zeros at the end of the second axis."""
    import torch
    import torch.nn.functional as F

    if len({tensor.shape[1:] for tensor in tensors}) == 1:
        return torch.cat(list(tensors))
    length = max(tensor.shape[1] for tensor in tensors)
    return torch.cat([F.pad(t, (0, 0) * (t.ndim - 2) + (0, length - t.shape[1])) for t in tensors])


def repeat_conditioning(conditioning: Conditioning, rows: int) -> Conditioning:
    """Returns a conditioning of `rows` rows; each row is repeated for the consecutive candidates of its image."""
    return {name: tensor.repeat_interleave(rows // len(tensor), dim=0) for name, tensor in conditioning.items()}
