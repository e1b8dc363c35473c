"""Writes LoRA files with random matrices for the tiny models of `tiny.py`, in the formats that people have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

RANK, ALPHA = 4, 2.0
UNET_LAYERS = re.compile(r".*attn[12]?\.(to_q|to_k|to_v|to_out\.0)|.*ff\.net\.0\.proj|.*ff\.net\.2")
DENOISERS = ("unet", "transformer")
TEXT_LAYERS = re.compile(r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)")
# The blocks of the tiny UNets in the names of SDXL's original code, which kohya uses for SDXL.
SGM = {
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "mid_block.attentions.0": "middle_block.1",
    "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
}
OLD = {"to_q": "to_q_lora", "to_k": "to_k_lora", "to_v": "to_v_lora", "to_out.0": "to_out_lora"}


def layers(network: Any, names: re.Pattern[str], seed: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yields (layer, A [rank, in], B [out, rank]) for each layer whose name matches."""
    generator = torch.Generator().manual_seed(seed)
    for name, module in network.named_modules():
        if names.fullmatch(name):
            out_size, in_size = module.weight.shape
            down = torch.randn(RANK, in_size, generator=generator) * 0.3
            up = torch.randn(out_size, RANK, generator=generator) * 0.3
            yield name, down, up


def networks_of(pipeline: Any, text: bool) -> dict[str, Any]:
    names = [*DENOISERS, *(["text_encoder", "text_encoder_2"] if text else [])]
    names = [name for name in names if name in pipeline._lora_loadable_modules]
    return {name: pipeline.components[name] for name in names}


def tensors(pipeline: Any, form: str, seed: int = 0, text: bool = True) -> dict[str, Tensor]:
    """Returns the tensors of a LoRA for the denoiser and, with `text`, the CLIP text encoders of a diffusers pipeline.

    `form` is kohya, diffusers (before PEFT: `processor.to_q_lora.down`) or peft (`to_q.lora_A`, as diffusers writes).
    """
    networks, state = networks_of(pipeline, text), {}
    for k, (name, network) in enumerate(networks.items()):
        is_denoiser = name in DENOISERS
        names = UNET_LAYERS if is_denoiser else TEXT_LAYERS
        for layer, down, up in layers(network, names, seed + k):
            own = layer if is_denoiser or layer.startswith("text_model.") else f"text_model.{layer}"
            down_key, up_key = KEYS[form](name, own, is_xl="text_encoder_2" in pipeline.components)
            state |= {down_key: down, up_key: up}
            if form == "kohya":
                state[down_key.replace("lora_down.weight", "alpha")] = torch.tensor(ALPHA)
    return state


def _kohya(network: str, layer: str, is_xl: bool) -> tuple[str, str]:
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te1" if is_xl else "lora_te", "text_encoder_2": "lora_te2"}
    if is_xl:
        for ours, theirs in SGM.items():
            layer = layer.replace(f"{ours}.", f"{theirs}.")
    key = f"{prefix[network]}_{layer.replace('.', '_')}"
    return f"{key}.lora_down.weight", f"{key}.lora_up.weight"


def _diffusers(network: str, layer: str, is_xl: bool) -> tuple[str, str]:
    for new, old in OLD.items():
        layer = re.sub(rf"(attn[12])\.{re.escape(new)}$", rf"\1.processor.{old}", layer)
        text = {"to_out.0": "out_proj"}.get(new, f"{new[-1]}_proj")
        layer = re.sub(rf"self_attn\.{text}$", f"self_attn.{old}", layer)
    infix = "" if "_lora" in layer else ".lora" if network == "unet" else ".lora_linear_layer"
    return f"{network}.{layer}{infix}.down.weight", f"{network}.{layer}{infix}.up.weight"


def _peft(network: str, layer: str, is_xl: bool) -> tuple[str, str]:
    return f"{network}.{layer}.lora_A.weight", f"{network}.{layer}.lora_B.weight"


KEYS = {"kohya": _kohya, "diffusers": _diffusers, "peft": _peft}


def save(path: Path, pipeline: Any, form: str = "kohya", seed: int = 0, text: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors(pipeline, form, seed, text), path)
    return path
