"""Training of the captioner: its loss, its convergence, and equal captions after saving and loading."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from transformers import CLIPModel, CLIPTokenizer

from clipgen.captioning.clipcap import ClipCap
from clipgen.captioning.coca import Coca
from clipgen.errors import ModelError, ModelNotFound
from clipgen.models.ids import BUNDLED
from clipgen.models.load_captioner import load_captioner
from clipgen.train.captioned import Captioned
from clipgen.train.captioner import BUDGET, IGNORED, CaptionerPart, _without_padding, build_captioner, build_coca
from clipgen.train.loop import fit
from clipgen.train.storybook import write_part

CAPTIONS = ("a red picture", "a green picture", "a blue picture", "a white picture")


HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
HEADS = ("mlp", "transformer", "coca")


def build(name: str, tokenizer: CLIPTokenizer, clip: CLIPModel) -> ClipCap | Coca:
    """Returns an untrained captioner for storybook's CLIP."""
    torch.manual_seed(0)
    if name == "coca":
        return build_coca(tokenizer, clip.config.vision_config.hidden_size)
    return build_captioner(tokenizer, clip.config.projection_dim, name)


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(BUNDLED["storybook"] / "tokenizer")


@pytest.fixture
def data() -> Captioned:
    """64 images of a single colour, in four colours."""
    colours = np.array([(220, 30, 30), (30, 180, 60), (30, 60, 220), (250, 250, 250)], dtype=np.uint8)
    pictures = np.repeat(np.tile(colours, (16, 1))[:, None, None], 128, axis=1).repeat(128, axis=2)
    return Captioned(pictures, tuple((caption,) for caption in CAPTIONS * 16), 0)


def test_padding_is_ignored_except_for_the_first_end_token() -> None:
    ids = torch.tensor([[5, 6, 9, 9], [5, 9, 9, 9], [5, 6, 7, 9]])
    expected = [[5, 6, 9, IGNORED], [5, 9, IGNORED, IGNORED], [5, 6, 7, 9]]
    assert _without_padding(ids, 9).view(3, 4).tolist() == expected


@pytest.mark.parametrize("name", HEADS)
def test_each_token_depends_on_the_image_and_the_preceding_tokens(tokenizer: CLIPTokenizer, name: str) -> None:
    torch.manual_seed(0)
    head = (build_coca(tokenizer, 8) if name == "coca" else build_captioner(tokenizer, 8, name)).eval()
    features = torch.randn(2, 5, 8) if name == "coca" else F.normalize(torch.randn(2, 8), dim=1)
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with torch.no_grad():
        logits = head(features, ids)
        other_tokens = head(features, torch.tensor([[5, 6, 99], [8, 99, 10]]))
        other_images = head(features.flip(0), ids)
    assert logits.shape == (2, 3, len(tokenizer))
    assert torch.allclose(logits[0], other_tokens[0], atol=1e-5)
    assert torch.allclose(logits[1, :2], other_tokens[1, :2], atol=1e-5)
    assert not torch.allclose(logits[1, 2], other_tokens[1, 2], atol=1e-3)
    assert not torch.allclose(logits, other_images, atol=1e-3)


@pytest.mark.parametrize("name", HEADS)
def test_a_captioner_learns_four_captions_and_survives_saving(
    data: Captioned, tokenizer: CLIPTokenizer, tmp_path: Path, name: str
) -> None:
    clip = CLIPModel.from_pretrained(BUNDLED["storybook"] / "clip").float()
    part = CaptionerPart(build(name, tokenizer, clip), clip, tokenizer, HALF, data, 8)
    part.to(torch.device("cpu"))
    assert part.trained_on == 56
    optimizer, losses = torch.optim.AdamW(part.model.parameters(), 1e-3), []
    for step in range(40 if name == "coca" else 200):
        loss, _ = part.loss(step, 0.0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(part.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    part.model.eval()
    features = part._features(np.arange(4))
    assert part.model.caption(features, tokenizer) == list(CAPTIONS)
    assert part.evaluate(tmp_path)["val_loss"] < 0.5
    assert "a red picture" in (tmp_path / "captions.txt").read_text()
    part.model.save_pretrained(tmp_path / "model")
    assert type(part.model).from_pretrained(tmp_path / "model").caption(features, tokenizer) == list(CAPTIONS)


def test_fit_trains_a_captioner(data: Captioned, tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    clip = CLIPModel.from_pretrained(BUNDLED["storybook"] / "clip").float()
    part = CaptionerPart(build("mlp", tokenizer, clip), clip, tokenizer, HALF, data, 4)
    model = fit(part, replace(BUDGET, minutes=0.02), tmp_path, Accelerator(cpu=True), lambda line: None)
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "state.safetensors").is_file()
    assert ClipCap.from_pretrained(tmp_path / "model").prefix == part.model.prefix


@pytest.fixture
def model(tokenizer: CLIPTokenizer, tmp_path: Path) -> str:
    """A copy of storybook with an untrained ClipCap in half precision in place of its CoCa."""
    folder = shutil.copytree(BUNDLED["storybook"], tmp_path / "model", ignore=shutil.ignore_patterns("coca"))
    torch.manual_seed(0)
    width = json.loads((folder / "clip" / "config.json").read_text())["projection_dim"]
    write_part(build_captioner(tokenizer, width), "captioner", folder)
    return str(folder)


def test_a_captioner_for_another_clip_raises_an_error(model: str, tokenizer: CLIPTokenizer) -> None:
    assert load_captioner(model, torch.device("cpu")).kind == "clipcap"
    write_part(build_captioner(tokenizer, 64), "captioner", Path(model))
    with pytest.raises(ModelError, match=r"captioner expects features of size 64, its CLIP gives 256\."):
        load_captioner(model, torch.device("cpu"))


def test_a_broken_or_missing_captioner_raises_a_one_line_error(model: str) -> None:
    with pytest.raises(ModelNotFound, match=r"has no captioner of kind coca\. To train one: clipgen train"):
        load_captioner(model, torch.device("cpu"), "coca")
    config, weights = (Path(model) / "captioner" / name for name in ("config.json", "model.safetensors"))
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "decoder": {**values["decoder"], "n_layer": 10**9}}))
    with pytest.raises(ModelError, match="n_layer is 1000000000, but the weights allow"):
        load_captioner(model, torch.device("cpu"))
    config.write_text(json.dumps({**values, "mapper": "gru"}))
    with pytest.raises(ModelError, match="config of ClipCap: mapper 'gru' is neither mlp nor transformer"):
        load_captioner(model, torch.device("cpu"))
    weights.write_bytes(b"x")
    with pytest.raises(ModelError, match=r"captioner/model\.safetensors"):
        load_captioner(model, torch.device("cpu"))
