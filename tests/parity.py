"""Generates the same images with clipgen and with the pipelines of diffusers, to compare them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clipgen import Pipeline, Result, Settings
from clipgen.errors import ModelError
from clipgen.families import LAYOUTS
from clipgen.families.text_encoders import PromptEmbeds, TextEncoder
from clipgen.models import CheckedModel, ModelFolder, preflight
from clipgen.settings.settings import Note
from clipgen.text import embed_prompt, tokenize_prompt

PROMPT, SEEDS = "a fox in snow", (7, 8)
IMAGE_SETTINGS = {"steps": 4, "width": 96, "height": 64}


def clipgen_results(pipe: Pipeline, prompt: str = PROMPT, **settings: Any) -> list[Result]:
    batch_settings = Settings(prompt=prompt, **{"seed": SEEDS[0], "images": len(SEEDS), **IMAGE_SETTINGS, **settings})
    return [event for event in pipe.generate(batch_settings) if isinstance(event, Result)]


def clipgen_images(pipe: Pipeline, prompt: str = PROMPT, **settings: Any) -> Tensor:
    """Returns clipgen's images [2, 3, 64, 96] in [0, 1]."""
    return torch.stack([result.pixels for result in clipgen_results(pipe, prompt, **settings)])


def diffusers_images(
    reference: Any, prompt: str | None = PROMPT, negative_prompt: str | None = None, **options: Any
) -> Tensor:
    """Returns the images of a diffusers pipeline [2, 3, 64, 96] in [0, 1], as one batch with the same seeds."""
    reference.set_progress_bar_config(disable=True)
    if negative_prompt is not None:
        options["negative_prompt"] = [negative_prompt] * len(SEEDS)
    images = reference(
        prompt=None if prompt is None else [prompt] * len(SEEDS),
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        num_inference_steps=IMAGE_SETTINGS["steps"],
        width=IMAGE_SETTINGS["width"],
        height=IMAGE_SETTINGS["height"],
        output_type="np",
        **options,
    ).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Encoded:
    """A prompt with its embeddings by each text encoder."""

    embedded: tuple[PromptEmbeds, ...]
    text: str
    warnings: tuple[Note, ...]
    lost: str


def encode_prompt(
    prompt: str, towers: Sequence[TextEncoder], *, windows: int = 1, clip_skip: int = 0, **options: Any
) -> Encoded:
    prompt_tokens = tokenize_prompt(prompt, towers, **options)
    embedded = embed_prompt(prompt_tokens, towers, windows, clip_skip)
    return Encoded(embedded, prompt_tokens.text, prompt_tokens.warnings, prompt_tokens.lost)


def max_difference(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


def check(folder: Path) -> CheckedModel:
    return preflight(ModelFolder("./model", folder, "folder"), LAYOUTS)


def copy_with_changes(folder: Path, copy: Path, file: str, **changes: Any) -> Path:
    """Links a model folder to `copy` and changes keys of one of its JSON files; None removes a key."""
    shutil.copytree(folder, copy, copy_function=os.link)
    values = json.loads((copy / file).read_text()) | changes
    (copy / file).unlink()
    (copy / file).write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return copy


def assert_rejected(folder: Path, message: str) -> None:
    """Asserts that the check of a folder raises a one-line ModelError."""
    with pytest.raises(ModelError, match=message) as error:
        check(folder)
    assert "\n" not in str(error.value)
