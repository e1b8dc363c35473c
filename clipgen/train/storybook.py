"""Writes trained parts as the storybook folder, in the layout that diffusers and transformers load."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    SiglipImageProcessorPil,
    SiglipModel,
)

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.score import Scorer, read_captions
from clipgen.hashing import sha256_of
from clipgen.train.unet import text_encoder_of
from clipgen.world.vocabulary import vocabulary_name

Part = TypeVar("Part", bound=nn.Module)
DEFAULTS = {"steps": 20, "guidance_scale": 3.0, "scheduler": "ddim", "eta": 0.0, "cutouts": 1, "guidance_every": 2}


@dataclass(frozen=True)
class Parts:
    """The trained parts of storybook, the side of its images in pixels, and the highest tier of its concepts."""

    clip: CLIPModel
    judge: SiglipModel
    latent_head: CLIPVisionModelWithProjection
    tokenizer: CLIPTokenizer
    vae: AutoencoderTiny
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler
    side: int
    vocabulary: int


def assemble(folder: Path, parts: Parts) -> None:
    """Writes every part as fp16 safetensors, defaults and vocabulary as clipgen.json, and SHA256SUMS."""
    tokenizer, side = parts.tokenizer, parts.side
    text_encoder = _half(text_encoder_of(parts.clip))
    pipeline = StableDiffusionPipeline(
        vae=_half(parts.vae), text_encoder=text_encoder, tokenizer=tokenizer, unet=_half(parts.unet),
        scheduler=parts.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    for name, encoder in (("clip", parts.clip), ("judge", parts.judge)):
        _half(encoder).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    _half(parts.latent_head).save_pretrained(folder / "latent_head")
    seen, half = parts.clip.config.vision_config.image_size, [0.5, 0.5, 0.5]
    CLIPImageProcessorPil(
        size={"shortest_edge": seen}, crop_size={"height": seen, "width": seen}, image_mean=half, image_std=half
    ).save_pretrained(folder / "clip")
    seen = parts.judge.config.vision_config.image_size
    SiglipImageProcessorPil(size={"height": seen, "width": seen}, image_mean=half, image_std=half).save_pretrained(
        folder / "judge"
    )
    _store_captions(folder / "clip", tokenizer)
    settings = {**DEFAULTS, "width": side, "height": side}
    declared = {"vocabulary": vocabulary_name(parts.vocabulary), "settings": settings}
    (folder / "clipgen.json").write_text(json.dumps(declared, indent=2) + "\n")
    _finish(folder)


def write_part(model: nn.Module, part: str, folder: Path) -> None:
    """Writes one trained part into a storybook folder in fp16 and updates the checksums.

    For a CLIP the features of the calibration captions are computed again.
    """
    _half(model).save_pretrained(folder / part)  # type: ignore[operator]
    if part == "clip":
        _store_captions(folder / "clip", CLIPTokenizer.from_pretrained(folder / "clip"))
    _finish(folder)


def _store_captions(folder: Path, tokenizer: CLIPTokenizer) -> None:
    """Stores the features of the calibration captions, computed with the weights on disk."""
    clip = CLIPModel.from_pretrained(folder).float().eval()
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    Scorer(ClipEncoder("clip", clip, tokenizer, preprocessor), read_captions()).store(folder)


def _finish(folder: Path) -> None:
    """Lets plain diffusers load the folder without a warning or a dtype, and writes the checksums."""
    _drop(folder / "vae" / "config.json", "block_out_channels")  # AutoencoderTiny writes it and warns when reading it
    for config in folder.glob("*/config.json"):
        _drop(config, "_name_or_path")  # a path of the machine that trained it
    _in_float32(folder / "text_encoder" / "config.json")
    write_checksums(folder)


def _in_float32(config: Path) -> None:
    """Lets transformers load a text encoder in float32, as diffusers loads the other parts of a pipeline."""
    values = json.loads(config.read_text()) | {"dtype": "float32"}
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def _drop(config: Path, key: str) -> None:
    """Removes a key from a config.json."""
    values = json.loads(config.read_text())
    values.pop(key, None)
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def drop_vocabulary(folder: Path) -> None:
    """Removes the vocabulary from a model's clipgen.json: it has learnt other words, so no word is unknown for sure."""
    _drop(folder / "clipgen.json", "vocabulary")


def write_checksums(folder: Path) -> None:
    """Writes SHA256SUMS over every weight and configuration file."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in {".safetensors", ".json", ".txt"})
    lines = [f"{sha256_of(p)}  {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


def _half(module: Part) -> Part:
    return module.to(torch.float16)
