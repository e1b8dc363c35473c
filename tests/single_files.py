"""Writes tiny models as checkpoints in one file, with the tensor names of the original repositories."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipgen.models.convert import FLUX_DOUBLE_BLOCK, FLUX_NAMES, FLUX_SINGLE_BLOCK, FLUX_SPLIT

Tensors = dict[str, Tensor]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}
OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.": "ln_final.",
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn": "attn",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def original_unet(tensors: Mapping[str, Tensor], layers: int = 1) -> Tensors:
    """Returns a UNet's tensors under the names of latent diffusion; `layers` is layers_per_block."""
    with_attention = {key.split(".")[1] for key in tensors if re.match(r"up_blocks\.\d+\.attentions", key)}

    def rename(key: str) -> str:
        for new, old in UNET.items():
            if key.startswith(new):
                return old + key.removeprefix(new)
        for new, old in RESNET.items():
            key = re.sub(rf"(resnets\.\d+\.){new}\.", rf"\1{old}.", key)
        block = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", key)
        if block is None:
            middle = {"mid_block.resnets.0.": "0.", "mid_block.attentions.0.": "1.", "mid_block.resnets.1.": "2."}
            start = next(start for start in middle if key.startswith(start))
            return f"middle_block.{middle[start]}{key.removeprefix(start)}"
        side, index, kind, layer, rest = block.groups()
        if side == "down":
            number = 1 + int(index) * (layers + 1) + (layers if kind == "downsamplers" else int(layer))
            part = {"resnets": "0.", "attentions": "1.", "downsamplers": "0.op."}[kind]
            return f"input_blocks.{number}.{part}{rest.removeprefix('conv.') if kind == 'downsamplers' else rest}"
        number = int(index) * (layers + 1) + (layers if kind == "upsamplers" else int(layer))
        up = "2." if index in with_attention else "1."
        return f"output_blocks.{number}.{ {'resnets': '0.', 'attentions': '1.', 'upsamplers': up}[kind] }{rest}"

    return {rename(key): tensor for key, tensor in tensors.items()}


def original_vae(tensors: Mapping[str, Tensor]) -> Tensors:
    """Returns a VAE's tensors under the names of latent diffusion, whose attention layers are convolutions."""
    last = max(int(key.split(".")[2]) for key in tensors if key.startswith("decoder.up_blocks."))

    def rename(key: str) -> str:
        key = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{last - int(m[1])}", key).replace("down_blocks", "down")
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = re.sub(r"resnets\.(\d)", r"block.\1", key).replace("conv_shortcut", "nin_shortcut")
        key = re.sub(r"(down|up)samplers\.0\.conv", r"\1sample.conv", key).replace("conv_norm_out", "norm_out")
        for new, old in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
            key = key.replace(f"mid_block.attentions.0.{new}.", f"mid.attn_1.{old}.")
        return key

    return {
        rename(key): tensor[..., None, None] if ".attentions." in key and tensor.ndim == 2 else tensor
        for key, tensor in tensors.items()
    }


def original_open_clip(tensors: Mapping[str, Tensor]) -> Tensors:
    """Returns the tensors of a CLIP text encoder under the names of OpenCLIP, which joins query, key and value."""
    converted: Tensors = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("text_model.")
        for new, old in OPEN_CLIP.items():
            name = name.replace(new, old)
        if ".q_proj." in name:
            parts = [tensors[key.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            stem, _, kind = name.rpartition(".q_proj.")
            converted[f"{stem}.in_proj_{kind}"] = torch.cat(parts)
        elif name == "text_projection.weight":
            converted["text_projection"] = tensor.T
        elif not (".k_proj." in name or ".v_proj." in name):
            converted[name] = tensor
    return converted


def original_flux(tensors: Mapping[str, Tensor]) -> Tensors:
    """Returns the tensors of a Flux transformer under the names of its repository."""
    remaining, converted = dict(tensors), dict[str, Tensor]()
    for kind in ("weight", "bias"):
        scale, shift = remaining.pop(f"norm_out.linear.{kind}").chunk(2)
        converted[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
    blocks = {"transformer_blocks": FLUX_DOUBLE_BLOCK, "single_transformer_blocks": FLUX_SINGLE_BLOCK}
    for key in list(remaining):
        group, _, rest = key.partition(".")
        if group not in blocks:
            start = next(old for old, new in FLUX_NAMES.items() if key.startswith(new))
            converted[start + key.removeprefix(FLUX_NAMES[start])] = remaining.pop(key)
            continue
        index, _, name = rest.partition(".")
        kind = name.rpartition(".")[2]
        old_group = "double_blocks" if group == "transformer_blocks" else "single_blocks"
        names = {new.format(kind): old.format(kind) for old, new in blocks[group].items()}
        if name in names:
            converted[f"{old_group}.{index}.{names[name]}"] = remaining.pop(key)
    for old, parts in FLUX_SPLIT.items():
        group, old_group = (
            ("single_transformer_blocks", "single_blocks")
            if old.startswith("linear1")
            else ("transformer_blocks", "double_blocks")
        )
        for kind in ("weight", "bias"):
            for index in {key.split(".")[1] for key in tensors if key.startswith(f"{group}.")}:
                rows = [remaining.pop(f"{group}.{index}.{part.format(kind)}") for part in parts]
                converted[f"{old_group}.{index}.{old.format(kind)}"] = torch.cat(rows)
    assert not remaining
    return converted


def weights(folder: Path) -> Tensors:
    """Returns the tensors of a component."""
    [path] = folder.glob("*.safetensors")
    return load_file(path)


def text_model(tensors: Mapping[str, Tensor]) -> Tensors:
    """Returns the tensors of a CLIPTextModel under the names of transformers before 5.6."""
    return {key if key.startswith("text_") else f"text_model.{key}": tensor for key, tensor in tensors.items()}


PARTS: Mapping[str, Mapping[str, tuple[str, Any]]] = {
    "sd1": {
        "unet": ("model.diffusion_model.", original_unet),
        "vae": ("first_stage_model.", original_vae),
        "text_encoder": ("cond_stage_model.transformer.", text_model),
    },
    "sd2": {
        "unet": ("model.diffusion_model.", original_unet),
        "vae": ("first_stage_model.", original_vae),
        "text_encoder": ("cond_stage_model.model.", original_open_clip),
    },
    "sdxl": {
        "unet": ("model.diffusion_model.", original_unet),
        "vae": ("first_stage_model.", original_vae),
        "text_encoder": ("conditioner.embedders.0.transformer.", text_model),
        "text_encoder_2": ("conditioner.embedders.1.model.", original_open_clip),
    },
    "flux": {
        "transformer": ("model.diffusion_model.", original_flux),
        "vae": ("vae.", original_vae),
        "text_encoder": ("text_encoders.clip_l.transformer.", text_model),
        "text_encoder_2": ("text_encoders.t5xxl.transformer.", dict),
    },
}


def save_single_file(folder: Path, path: Path, kind: str, **more: Tensor) -> Path:
    """Writes the networks of a model folder into one file, and the configs and tokenizers into a folder next to it."""
    tensors: Tensors = dict(more)
    for name, (prefix, convert) in PARTS[kind].items():
        tensors |= {prefix + key: tensor.contiguous() for key, tensor in convert(weights(folder / name)).items()}
    save_file(tensors, path)
    shutil.copytree(folder, path.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))
    return path
