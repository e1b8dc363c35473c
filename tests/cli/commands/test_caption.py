"""`clipgen caption` and the Python function with ClipCap, CoCa and BLIP models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil, CLIPTokenizer

from clipgen import caption
from clipgen.captioning.blip import BlipCaptioner
from clipgen.models.ids import BUNDLED
from clipgen.models.load_captioner import load_captioner
from clipgen.train.captioner import build_captioner, build_coca
from clipgen.train.storybook import write_part

from ..conftest import Run


@pytest.fixture
def model(tmp_path: Path) -> str:
    """storybook with an untrained ClipCap instead of its CoCa, in half precision."""
    folder = shutil.copytree(BUNDLED["storybook"], tmp_path / "model", ignore=shutil.ignore_patterns("coca"))
    torch.manual_seed(0)
    width = json.loads((folder / "clip" / "config.json").read_text())["projection_dim"]
    write_part(build_captioner(CLIPTokenizer.from_pretrained(folder / "tokenizer"), width), "captioner", folder)
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


def test_kind(model: str, run: Run, tmp_path: Path) -> None:
    torch.manual_seed(1)
    write_part(build_coca(CLIPTokenizer.from_pretrained(Path(model) / "tokenizer"), 224), "coca", Path(model))
    Image.new("RGB", (60, 40), "red").save(tmp_path / "red.png")
    texts = {kind: run("caption", "red.png", "-m", model, "--kind", kind).out for kind in ("clipcap", "coca")}
    assert texts["coca"] != texts["clipcap"] == run("caption", "red.png", "-m", model).out
    ran = run("caption", "red.png", "-m", model, "--kind", "gpt")
    assert (ran.code, ran.err) == (2, "clipgen: Unknown kind 'gpt'. Works: clipcap, coca.\n")


def test_diff_with_the_prompt_in_the_file(model: str, run: Run, tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "two foxes in the snow\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1")
    Image.new("RGB", (60, 40), "red").save(tmp_path / "fox.png", pnginfo=info)
    Image.new("RGB", (60, 40), "red").save(tmp_path / "plain.png")
    ran = run("caption", "fox.png", "-m", model, "--diff")
    assert (ran.code, len(ran.lines[0].split("\t"))) == (0, 4)
    [picture] = run("caption", "fox.png", "-m", model, "--diff", "--json").data["pictures"]
    assert picture["prompt"] == "two foxes in the snow"
    assert picture["missing"]
    ran = run("caption", "plain.png", "-m", model, "--diff")
    assert (ran.code, ran.out) == (1, "")
    assert "No settings of a known app in 'plain.png'" in ran.err


def test_a_blip_writes_captions(run: Run, tmp_path: Path) -> None:
    save_blip(tmp_path / "blip")
    Image.new("RGB", (60, 40), "red").save(tmp_path / "red.png")
    assert run("caption", "red.png", "-m", "./blip").lines == [f"red.png\t{caption('red.png', model='./blip')[0]}"]
    ran = run("caption", "red.png", "-m", "./blip", "--kind", "coca")
    assert (ran.code, ran.err) == (2, "clipgen: model './blip' is a BLIP and has no captioner of kind 'coca'\n")


def save_blip(folder: Path) -> None:
    """Saves a tiny random BLIP with a small vocabulary."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{k}" for k in range(30))]
    tokenizer = BertTokenizer(vocab={name: k for k, name in enumerate(names)}, model_max_length=512)
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**sizes, **ends, "vocab_size": len(names), "encoder_hidden_size": 32, "max_position_embeddings": 64}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)


def test_blip_preprocessing_equals_that_of_transformers(tmp_path: Path) -> None:
    save_blip(tmp_path / "blip")
    image = Image.effect_noise((60, 40), 80).convert("RGB")
    pixel_values = BlipImageProcessorPil.from_pretrained(tmp_path / "blip")(image, return_tensors="pt").pixel_values[0]
    writer = load_captioner(str(tmp_path / "blip"), torch.device("cpu"))
    assert isinstance(writer, BlipCaptioner)
    assert torch.allclose(writer._preprocess(image), pixel_values, atol=1e-5)


def test_a_model_without_captioner_is_an_error(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "fox.png")
    shutil.copytree(BUNDLED["storybook"] / "clip", tmp_path / "alone")
    ran = run("caption", "fox.png", "-m", "./alone")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == "clipgen: Model './alone' has no captioner. To train one: clipgen train captioner.\n"


def test_storybook_captions_its_own_image(run: Run, tmp_path: Path) -> None:
    run("a fox in snow", "--seed", "1", "-o", "fox.png")
    assert run("caption", "fox.png").out.endswith("in snow\n")
