"""caption: by a model folder that has a captioner, the same in the terminal and in Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPTokenizer

from clipgen import caption
from clipgen.models.find import BUNDLED
from clipgen.train.captioner import build_captioner
from clipgen.train.storybook import put_back

from .conftest import Run


@pytest.fixture
def model(tmp_path: Path) -> str:
    """storybook with an untrained captioner in it, in half precision as the box would have it."""
    folder = shutil.copytree(BUNDLED["storybook"], tmp_path / "model")
    torch.manual_seed(0)
    width = json.loads((folder / "clip" / "config.json").read_text())["projection_dim"]
    put_back(build_captioner(CLIPTokenizer.from_pretrained(folder / "tokenizer"), width), "captioner", folder)
    return str(folder)


def test_a_folder_with_a_captioner_writes_captions(model: str, run: Run, tmp_path: Path) -> None:
    images = []
    for name in ("red", "blue"):
        Image.new("RGB", (60, 40), name).save(tmp_path / f"{name}.png")
        images.append(tmp_path / f"{name}.png")
    captions = caption(images, model=model)
    ran = run("caption", *map(str, images), "-m", model)
    assert ran.lines == [f"{path}\t{text}" for path, text in zip(images, captions, strict=True)]
    assert run("caption", str(images[0]), "-m", model, "--json").data["pictures"][0]["caption"] == captions[0]


def test_a_model_without_a_captioner_says_how_to_get_one(run: Run) -> None:
    ran = run("caption", "fox.png")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == "clipgen: Model 'storybook' brings no captioner. To train one: clipgen train captioner.\n"
