"""The same pictures drawn by clipgen and by diffusers' own pipelines."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clipgen import Pipeline, Result, Settings
from clipgen.errors import ModelError
from clipgen.families import LAYOUTS
from clipgen.models import CheckedModel, ModelFolder, preflight

PROMPT, SEEDS = "a fox in snow", (7, 8)
DRAWN = {"steps": 4, "width": 96, "height": 64}


def results(pipe: Pipeline, prompt: str = PROMPT, **settings: Any) -> list[Result]:
    wanted = Settings(prompt=prompt, **{"seed": SEEDS[0], "images": len(SEEDS), **DRAWN, **settings})
    return [event for event in pipe.generate(wanted) if isinstance(event, Result)]


def ours(pipe: Pipeline, prompt: str = PROMPT, **settings: Any) -> Tensor:
    """[2, 3, 64, 96] in [0, 1]."""
    return torch.stack([result.pixels for result in results(pipe, prompt, **settings)])


def theirs(peer: Any, prompt: str = PROMPT, negative_prompt: str | None = None, **options: Any) -> Tensor:
    """[2, 3, 64, 96] in [0, 1]; a batch of the same size from the same seeds."""
    peer.set_progress_bar_config(disable=True)
    if negative_prompt is not None:
        options["negative_prompt"] = [negative_prompt] * len(SEEDS)
    images = peer(
        prompt=[prompt] * len(SEEDS),
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        num_inference_steps=DRAWN["steps"],
        width=DRAWN["width"],
        height=DRAWN["height"],
        output_type="np",
        **options,
    ).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def apart(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


def check(folder: Path) -> CheckedModel:
    return preflight(ModelFolder("./model", folder, "folder"), LAYOUTS)


def spoiled(folder: Path, copy: Path, file: str, **changes: Any) -> Path:
    """Links a model folder to `copy` and changes keys of one of its JSON files; None drops one."""
    shutil.copytree(folder, copy, copy_function=os.link)
    values = json.loads((copy / file).read_text()) | changes
    (copy / file).unlink()
    (copy / file).write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return copy


def refused(folder: Path, message: str) -> None:
    """Checks a folder, which must be refused in one line."""
    with pytest.raises(ModelError, match=message) as error:
        check(folder)
    assert "\n" not in str(error.value)
