"""The image prior: what it learns from, that it learns it, and that a model folder with it draws variations."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTokenizer

from clipgen import Pipeline, Settings
from clipgen.clip.image_prior import ImagePrior
from clipgen.models.find import BUNDLED
from clipgen.train.captioned import Captioned
from clipgen.train.image_prior import BUDGET, ImagePriorPart, build_image_prior
from clipgen.train.loop import fit
from clipgen.train.storybook import put_back
from clipgen.train.world.concepts import concepts
from clipgen.train.world.grammar import NUMBERS, plain_caption
from clipgen.train.world.scene import sample_scene

CAPTIONS = ("a red picture", "a green picture", "a blue picture", "a white picture")
STORYBOOK = BUNDLED["storybook"]


@pytest.fixture
def data() -> Captioned:
    """64 plain pictures in four colours."""
    colours = np.array([(220, 30, 30), (30, 180, 60), (30, 60, 220), (250, 250, 250)], dtype=np.uint8)
    pictures = np.repeat(np.tile(colours, (16, 1))[:, None, None], 128, axis=1).repeat(128, axis=2)
    return Captioned(pictures, tuple((caption,) for caption in CAPTIONS * 16), 0)


@pytest.fixture
def part(data: Captioned, tmp_path: Path) -> ImagePriorPart:
    torch.manual_seed(0)
    clip = CLIPModel.from_pretrained(STORYBOOK / "clip").float()
    tokenizer = CLIPTokenizer.from_pretrained(STORYBOOK / "tokenizer")
    return ImagePriorPart(build_image_prior(clip, tokenizer), clip, tokenizer, data, 16, tmp_path)


def test_the_plain_caption_names_all_there_is_and_is_always_the_same() -> None:
    for seed in range(300):
        scene = sample_scene(seed)
        text = plain_caption(scene)
        assert text == plain_caption(scene)
        assert "  " not in text
        for thing in scene.things:
            concept = concepts()[thing.concept]
            assert (concept.name if thing.count == 1 else f"{concept.plural}") in text
            assert thing.count == 1 or NUMBERS[thing.count][0] in text
            assert thing.colour in text


def test_it_learns_to_say_what_clip_sees(part: ImagePriorPart, tmp_path: Path) -> None:
    part.to(torch.device("cpu"))
    assert (part.known, part.ids.shape) == (56, (64, 32))
    assert part.said.sum(dim=1).tolist() == [4] * 64  # three words and the end
    assert load_file(tmp_path / "vectors.safetensors")["vectors"].shape == (64, 256)
    optimizer, losses = torch.optim.AdamW(part.model.parameters(), 2e-3), []
    for step in range(60):
        loss, _ = part.loss(step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    with torch.no_grad():
        found = part.show(tmp_path)
    assert (found["val_captions"], found["val_tokens"]) == (1.0, 1.0)
    ids = part.model.ids(part.vectors[:4], *part.marks)
    assert torch.equal(ids, part.ids[:4])  # what pads them too
    assert tuple(part.tokenizer.batch_decode(ids, skip_special_tokens=True)) == CAPTIONS
    part.model.save_pretrained(tmp_path / "model")
    again = ImagePrior.from_pretrained(tmp_path / "model")
    assert torch.equal(again(part.vectors[:2]), part.model(part.vectors[:2]))


def test_the_loop_trains_it_and_a_folder_with_it_draws_variations(part: ImagePriorPart, tmp_path: Path) -> None:
    part.draw = lambda ids: torch.zeros(len(ids), 3, 128, 128)
    model = fit(part, replace(BUDGET, minutes=0.01), tmp_path / "run", Accelerator(cpu=True), lambda line: None)
    assert (tmp_path / "run" / "samples" / "variations.png").is_file()
    folder = shutil.copytree(STORYBOOK, tmp_path / "model")
    put_back(model, "image_prior", folder)
    Image.new("RGB", (128, 128), "red").save(tmp_path / "red.png")
    pipe = Pipeline.from_pretrained(str(folder))
    settings = Settings.from_dict({"vary": str(tmp_path / "red.png"), "seed": 1, "steps": 2})
    (result,) = pipe.run(settings)
    assert result.likeness is not None
    assert pipe.family.vae is not None
