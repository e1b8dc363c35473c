"""What the model folders of all families have in common: their parts, and the checks that these fit one another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clipgen.errors import ModelError
from clipgen.models import ClassRef, NetworkSpec, encoder_of
from clipgen.sampling.schedulers import SCHEDULERS

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OTHER_SCHEDULERS = {"LMSDiscreteScheduler": "euler"}
EMBEDDINGS = "encoder.embed_tokens.weight", "shared.weight"


def _text_name(name: str) -> str:
    """Maps a tensor name of transformers before 5.6, which nested the tower, to today's."""
    return name.removeprefix("text_model.")


def _vae_name(name: str) -> str:
    """Maps the attention names of VAEs saved by diffusers before 0.17 to today's."""
    return re.sub(r"(attentions\.\d+\.)(query|key|value|proj_attn)\.", lambda m: f"{m[1]}{OLD_ATTENTION[m[2]]}.", name)


CLIP_TOKENIZER: tuple[ClassRef, ...] = (("transformers", "CLIPTokenizer"), ("transformers", "CLIPTokenizerFast"))
T5_TOKENIZER: tuple[ClassRef, ...] = (("transformers", "T5TokenizerFast"), ("transformers", "T5Tokenizer"))
UNET = NetworkSpec((("diffusers", "UNet2DConditionModel"),))
VAE = NetworkSpec((("diffusers", "AutoencoderKL"), ("diffusers", "AutoencoderTiny")), _vae_name)
CLIP_TEXT = NetworkSpec((("transformers", "CLIPTextModel"),), _text_name)
CLIP_TEXT_PROJECTED = NetworkSpec((("transformers", "CLIPTextModelWithProjection"),))
T5_TEXT = NetworkSpec(
    (("transformers", "T5EncoderModel"),),
    tied=dict((EMBEDDINGS, EMBEDDINGS[::-1])),
    not_half=(".wo.",),  # the feed-forward outputs of T5 v1.1 pass float16's range
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
NO_FLOW = ("epsilon", "v_prediction", "sample")
DIFFUSION = (*{spec.class_name: None for spec in SCHEDULERS.values() if not spec.needs_flow}, *OTHER_SCHEDULERS)
FLOWS = (*{spec.class_name: None for spec in SCHEDULERS.values() if spec.flow == spec.name},)


def own_scheduler(config: Mapping[str, Any]) -> str:
    """Returns our name for the scheduler of a model's config: of its class the one whose options differ least."""
    name = config["_class_name"]
    if name in OTHER_SCHEDULERS:
        return OTHER_SCHEDULERS[name]
    specs = [spec for spec in SCHEDULERS.values() if spec.class_name == name]
    return min(specs, key=lambda spec: sum(config.get(key, value) != value for key, value in spec.options.items())).name


def check_latents(denoiser: str, takes: int, gives: int, vae: Any) -> None:
    """Raises ModelError unless a denoiser takes and gives the VAE's latents, `takes` and `gives` channels of them."""
    if takes != vae.config.latent_channels or gives != vae.config.latent_channels:
        raise ModelError(
            f"{denoiser} takes {takes} channels and the vae gives {vae.config.latent_channels}: a model that needs an "
            "image, a mask or depth beside the prompt is not supported."
        )


def check_width(what: str, wanted: int, given: int) -> None:
    """Raises ModelError unless a denoiser reads embeddings of the width that the text encoders give."""
    if wanted != given:
        raise ModelError(f"{what} of {wanted}, the text encoders give {given}.")


def check_inputs(unet: Any, family: str, known: tuple[str, ...] = ()) -> None:
    """Raises ModelError for a UNet that wants an input which its family, but for those `known`, does not give it."""
    extras = (
        "class_embed_type",
        "addition_embed_type",
        "encoder_hid_dim_type",
        "time_cond_proj_dim",
        "num_class_embeds",
    )
    if wanted := [name for name in extras if name not in known and unet.config[name] is not None]:
        raise ModelError(f"unet/config.json: {wanted[0]} is set; clipgen's {family} family has no such input.")


def check_lengths(tokenizers: Mapping[str, dict[str, Any]], networks: Mapping[str, Any], *names: str) -> None:
    """Raises ModelError unless each CLIP text encoder has a place for all its tokens, and all read equally many."""
    lengths = {name: tokenizers[name]["model_max_length"] for name in names}
    for name, length in lengths.items():
        encoder = encoder_of(name)
        if length > (places := networks[encoder].config.max_position_embeddings):
            raise ModelError(f"{name} gives {length} tokens, {encoder} has {places} places.")
    if len(set(lengths.values())) > 1:
        counts = " and ".join(map(str, lengths.values()))
        raise ModelError(f"{' and '.join(lengths)} give {counts} tokens; they must give equally many.")
