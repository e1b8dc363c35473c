"""What the model folders of several families share: network specs, and checks that the components fit together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clipgen.errors import ModelError
from clipgen.models import ClassRef, NetworkSpec, encoder_of
from clipgen.sampling.schedulers import SCHEDULERS

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
# Scheduler classes that clipgen replaces: LMS needs scipy, and TCD without its noise takes the steps of DDIM.
OTHER_SCHEDULERS = {"LMSDiscreteScheduler": "euler", "TCDScheduler": "ddim"}
EMBEDDINGS = "encoder.embed_tokens.weight", "shared.weight"
QWEN3_HEAD = "lm_head.weight", "model.embed_tokens.weight"


def _rename_text_tensor(name: str) -> str:
    """Maps a tensor name saved by transformers before 5.6, which had a `text_model` submodule, to the current one."""
    return name.removeprefix("text_model.")


def _rename_vae_tensor(name: str) -> str:
    """Maps an attention tensor name saved by diffusers before 0.17 to the current one."""
    return re.sub(r"(attentions\.\d+\.)(query|key|value|proj_attn)\.", lambda m: f"{m[1]}{OLD_ATTENTION[m[2]]}.", name)


def _rename_qwen3_tensor(name: str) -> str:
    """Maps a tensor name of a Qwen3Model, which has no head, to that of a Qwen3ForCausalLM."""
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"


CLIP_TOKENIZER: tuple[ClassRef, ...] = (("transformers", "CLIPTokenizer"), ("transformers", "CLIPTokenizerFast"))
T5_TOKENIZER: tuple[ClassRef, ...] = (("transformers", "T5TokenizerFast"), ("transformers", "T5Tokenizer"))
UNET = NetworkSpec((("diffusers", "UNet2DConditionModel"),))
VAE = NetworkSpec((("diffusers", "AutoencoderKL"), ("diffusers", "AutoencoderTiny")), _rename_vae_tensor)
CLIP_TEXT = NetworkSpec((("transformers", "CLIPTextModel"),), _rename_text_tensor)
CLIP_TEXT_PROJECTED = NetworkSpec((("transformers", "CLIPTextModelWithProjection"),))
T5_TEXT = NetworkSpec(
    (("transformers", "T5EncoderModel"),),
    tied=dict((EMBEDDINGS, EMBEDDINGS[::-1])),
    not_half=(".wo.",),  # the feed-forward outputs of T5 v1.1 overflow in float16
)
QWEN_TOKENIZER: tuple[ClassRef, ...] = (("transformers", "Qwen2TokenizerFast"), ("transformers", "Qwen2Tokenizer"))
QWEN3_TEXT = NetworkSpec(
    (("transformers", "Qwen3ForCausalLM"),),
    _rename_qwen3_tensor,
    tied=dict((QWEN3_HEAD, QWEN3_HEAD[::-1])),
    saved_as=(("transformers", "Qwen3Model"),),
    computes_buffers=True,
)
CLIP = NetworkSpec((("transformers", "CLIPModel"),), required=False, full_precision=True)
LATENT_HEAD = NetworkSpec((("transformers", "CLIPVisionModelWithProjection"),), required=False, full_precision=True)
UNUSED: Mapping[str, tuple[ClassRef, ...]] = {
    "feature_extractor": (
        ("transformers", "CLIPImageProcessor"),
        ("transformers", "CLIPImageProcessorPil"),
        ("transformers", "CLIPFeatureExtractor"),
        ("transformers", "SiglipImageProcessor"),
    ),
    "image_encoder": (("transformers", "CLIPVisionModelWithProjection"), ("transformers", "SiglipVisionModel")),
}
DIFFUSION_PREDICTIONS = ("epsilon", "v_prediction", "sample")
DIFFUSION_SCHEDULERS = (
    *{spec.class_name: None for spec in SCHEDULERS.values() if not spec.needs_flow},
    *OTHER_SCHEDULERS,
)
FLOW_SCHEDULERS = (*{spec.class_name: None for spec in SCHEDULERS.values() if spec.flow == spec.name},)


def scheduler_name(config: Mapping[str, Any]) -> str:
    """Returns clipgen's name of a model's scheduler: of those with its class, the one whose options differ least."""
    class_name = config["_class_name"]
    if class_name in OTHER_SCHEDULERS:
        return OTHER_SCHEDULERS[class_name]
    specs = [spec for spec in SCHEDULERS.values() if spec.class_name == class_name]
    return min(specs, key=lambda spec: sum(config.get(key, value) != value for key, value in spec.options.items())).name


def check_latents(denoiser: str, in_channels: int, out_channels: int, vae: Any) -> None:
    """Raises ModelError unless the denoiser's input and output channels are the VAE's latent channels."""
    if in_channels != vae.config.latent_channels or out_channels != vae.config.latent_channels:
        raise ModelError(
            f"{denoiser} takes {in_channels} channels and the vae gives {vae.config.latent_channels}: a model that "
            "needs an image, a mask or depth in addition to the prompt is not supported."
        )


def check_embed_size(denoiser: str, embeds: str, expected: int, given: int) -> None:
    """Raises ModelError unless the text encoders give embeddings of the size that the denoiser expects.

    `embeds` is diffusers' name for them: prompt_embeds or pooled_prompt_embeds.
    """
    if expected != given:
        raise ModelError(f"{denoiser} expects {embeds} of size {expected}, the text encoders give {given}.")


def check_patches(config: Any, out_channels: int, vae: Any, patch: int) -> None:
    """Raises ModelError unless a transformer's tokens are `patch` x `patch` latents of the VAE."""
    if config.in_channels % patch**2 or config.patch_size != 1:
        raise ModelError(
            f"transformer takes {config.in_channels} channels, which is not a multiple of {patch} x {patch} latents."
        )
    check_latents("transformer", config.in_channels // patch**2, out_channels // patch**2, vae)


def check_rope(config: Any, axes: int) -> None:
    """Raises ModelError unless a transformer's rotary position embedding has so many axes and fills its heads."""
    if len(config.axes_dims_rope) != axes or sum(config.axes_dims_rope) != config.attention_head_dim:
        raise ModelError(
            f"transformer/config.json: axes_dims_rope must be {axes} numbers that sum to attention_head_dim."
        )


def even_sigmas(steps: int) -> list[float]:
    """Returns `steps` evenly spaced noise levels of a flow model, from 1 to 1/steps."""
    return [(steps - step) / steps for step in range(steps)]


def check_inputs(unet: Any, family: str, allowed: tuple[str, ...] = ()) -> None:
    """Raises ModelError for a UNet that needs inputs which its family does not give it, except those `allowed`."""
    extras = (
        "class_embed_type",
        "addition_embed_type",
        "encoder_hid_dim_type",
        "time_cond_proj_dim",
        "num_class_embeds",
    )
    if unknown := [name for name in extras if name not in allowed and unet.config[name] is not None]:
        raise ModelError(f"unet/config.json: {unknown[0]} is set; clipgen's {family} family has no such input.")


def check_lengths(tokenizers: Mapping[str, dict[str, Any]], networks: Mapping[str, Any], *names: str) -> None:
    """Raises ModelError unless each CLIP text encoder has a position for every token and all lengths are equal."""
    lengths = {name: tokenizers[name]["model_max_length"] for name in names}
    for name, length in lengths.items():
        encoder = encoder_of(name)
        if length > (positions := networks[encoder].config.max_position_embeddings):
            raise ModelError(f"{name} gives {length} tokens, {encoder} has {positions} positions.")
    if len(set(lengths.values())) > 1:
        counts = " and ".join(map(str, lengths.values()))
        raise ModelError(f"{' and '.join(lengths)} give {counts} tokens; their lengths must be equal.")
