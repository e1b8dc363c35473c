"""Conversions from the tensor names of original repositories to those of diffusers and transformers.

Each takes the tensors of one network, without the prefix that they have in a checkpoint, and the network's config.
Latent diffusion's networks (Rombach et al. 2022) are converted by diffusers; its function for Flux supports only one
width, so that Flux has its own here.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]


class Convert(Protocol):
    """A conversion; it raises KeyError, AttributeError or the like if tensors are missing."""

    def __call__(self, tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
        """Returns the tensors under their new names."""


def keep(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Returns the tensors as they are."""
    return tensors


def convert_unet(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Converts the UNet of Stable Diffusion and SDXL."""
    from diffusers.loaders.single_file_utils import LDM_UNET_KEY, convert_ldm_unet_checkpoint

    converted: Tensors = convert_ldm_unet_checkpoint({LDM_UNET_KEY + key: t for key, t in tensors.items()}, config)
    return converted


def convert_vae(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Converts the VAE of Stable Diffusion, SDXL and Flux; tensors of the training (loss, EMA) are left out."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    parts = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
    own = {key: tensor for key, tensor in tensors.items() if key.startswith(parts)}
    if "down_block_types" not in config or any(key.startswith("decoder.up_blocks.") for key in own):
        return own  # an AutoencoderTiny, or already in diffusers' names
    converted: Tensors = convert_ldm_vae_checkpoint(own, config)
    return converted


def convert_clip(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Converts a CLIP text encoder of OpenAI; its projection, which some files have, is not used."""
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(("text_projection", "logit_scale"))}


def convert_open_clip(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Converts a CLIP text encoder of OpenCLIP without its projection, and without layers that the config lacks.

    Stable Diffusion 2 reads the layer before the last, so that its config has one layer less than the file.
    """
    converted = convert_projected_open_clip(tensors, config)
    converted.pop("text_projection.weight", None)
    return converted


def convert_projected_open_clip(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Converts a CLIP text encoder of OpenCLIP with its projection."""
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    layers = tuple(f"transformer.resblocks.{index}." for index in range(config["num_hidden_layers"]))
    own = {key: t for key, t in tensors.items() if not key.startswith("transformer.") or key.startswith(layers)}
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
    converted: Tensors = convert_open_clip_checkpoint(model, own, prefix="")
    return converted


FLUX_NAMES = {  # the beginning of a name -> the new beginning
    "time_in.in_layer.": "time_text_embed.timestep_embedder.linear_1.",
    "time_in.out_layer.": "time_text_embed.timestep_embedder.linear_2.",
    "vector_in.in_layer.": "time_text_embed.text_embedder.linear_1.",
    "vector_in.out_layer.": "time_text_embed.text_embedder.linear_2.",
    "guidance_in.in_layer.": "time_text_embed.guidance_embedder.linear_1.",
    "guidance_in.out_layer.": "time_text_embed.guidance_embedder.linear_2.",
    "txt_in.": "context_embedder.",
    "img_in.": "x_embedder.",
    "final_layer.linear.": "proj_out.",
}
FLUX_DOUBLE_BLOCK = {  # within a block; {} is `weight` or `bias`
    "img_mod.lin.{}": "norm1.linear.{}",
    "txt_mod.lin.{}": "norm1_context.linear.{}",
    "img_attn.norm.query_norm.scale": "attn.norm_q.weight",
    "img_attn.norm.key_norm.scale": "attn.norm_k.weight",
    "txt_attn.norm.query_norm.scale": "attn.norm_added_q.weight",
    "txt_attn.norm.key_norm.scale": "attn.norm_added_k.weight",
    "img_mlp.0.{}": "ff.net.0.proj.{}",
    "img_mlp.2.{}": "ff.net.2.{}",
    "txt_mlp.0.{}": "ff_context.net.0.proj.{}",
    "txt_mlp.2.{}": "ff_context.net.2.{}",
    "img_attn.proj.{}": "attn.to_out.0.{}",
    "txt_attn.proj.{}": "attn.to_add_out.{}",
}
FLUX_SINGLE_BLOCK = {
    "modulation.lin.{}": "norm.linear.{}",
    "norm.query_norm.scale": "attn.norm_q.weight",
    "norm.key_norm.scale": "attn.norm_k.weight",
    "linear2.{}": "proj_out.{}",
}
FLUX_SPLIT = {  # joined linear layers -> their parts, in order; the last part takes the rows that are left
    "img_attn.qkv.{}": ("attn.to_q.{}", "attn.to_k.{}", "attn.to_v.{}"),
    "txt_attn.qkv.{}": ("attn.add_q_proj.{}", "attn.add_k_proj.{}", "attn.add_v_proj.{}"),
    "linear1.{}": ("attn.to_q.{}", "attn.to_k.{}", "attn.to_v.{}", "proj_mlp.{}"),
}


def convert_flux(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Converts the transformer of Flux 1. Linear layers of several outputs are split into rows."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    converted: Tensors = {}
    for key, tensor in tensors.items():
        group, _, rest = key.partition(".")
        if group == "final_layer" and rest.startswith("adaLN_modulation.1."):
            shift, scale = tensor[:width], tensor[width:]  # diffusers has the scale first
            converted[f"norm_out.linear.{rest.rpartition('.')[2]}"] = _join(scale, shift)
        elif group in ("double_blocks", "single_blocks"):
            index, _, name = rest.partition(".")
            block = "transformer_blocks" if group == "double_blocks" else "single_transformer_blocks"
            names = FLUX_DOUBLE_BLOCK if group == "double_blocks" else FLUX_SINGLE_BLOCK
            converted |= {f"{block}.{index}.{new}": part for new, part in _flux_layer(name, tensor, names, width)}
        else:
            start = next((start for start in FLUX_NAMES if key.startswith(start)), "")
            converted[FLUX_NAMES.get(start, "") + key.removeprefix(start)] = tensor
    return converted


def _flux_layer(name: str, tensor: Tensor, names: Mapping[str, str], width: int) -> list[tuple[str, Tensor]]:
    """Returns the new names and the tensors of one tensor of a block; an unknown name stays."""
    stem, _, kind = name.rpartition(".")
    pattern = f"{stem}.{{}}"
    if pattern in FLUX_SPLIT:
        parts = FLUX_SPLIT[pattern]
        bounds = [*(row * width for row in range(len(parts))), len(tensor)]
        rows = [tensor[start:stop] for start, stop in pairwise(bounds)]
        return [(part.format(kind), each) for part, each in zip(parts, rows, strict=True)]
    return [(names.get(name) or names.get(pattern, name).format(kind), tensor)]


def _join(*parts: Tensor) -> Tensor:
    import torch

    return torch.cat(list(parts))  # a list: diffusers' quantised tensors keep their type only with one
