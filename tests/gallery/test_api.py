"""similarity, score, classify and rank, on storybook: the pictures are drawn with a brush or by the model itself."""

from __future__ import annotations

import json

import pytest
import tiny_siglip
import torch
from PIL import Image

from clipgen import ImageFileError, SettingsError, classify, diversity, rank, score, search, similarity
from clipgen.models.find import BUNDLED

from .conftest import CAR, FOX

LABELS = ["a photo of a fox", "a photo of a car"]


def test_the_articles_snippet(drawn, clip):
    """transformers' CLIPModel and CLIPProcessor, as the article has them, and clipgen: the same numbers."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder = BUNDLED["storybook"] / "clip"
    model = CLIPModel.from_pretrained(folder).float()
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    processor = CLIPProcessor(CLIPImageProcessorPil(**settings), CLIPTokenizer.from_pretrained(folder))
    with Image.open(drawn[FOX]) as image:
        big = image.resize((300, 200))
    inputs = processor(text=LABELS, images=big, return_tensors="pt", padding=True)
    with torch.no_grad():
        outputs = model(**inputs)
    logits_per_image = outputs.logits_per_image
    probs = logits_per_image.softmax(dim=1)
    ours = similarity(big, LABELS, model=clip)
    assert torch.allclose(ours * model.logit_scale.exp(), logits_per_image, atol=1e-4)
    [classify_features] = classify(big, LABELS, model=clip)
    by_label = {guess.label: guess.probability for guess in classify_features}
    assert torch.allclose(torch.tensor([[by_label[label] for label in LABELS]]), probs, atol=1e-4)


def test_storybook_knows_what_it_drew(drawn, clip):
    fox, car = classify(drawn.values(), LABELS, model=clip)
    assert (fox[0].label, car[0].label) == tuple(LABELS)
    assert min(fox[0].probability, car[0].probability) > 0.6
    cosines = similarity(list(drawn.values()), [FOX, CAR], model=clip)
    assert cosines.shape == (2, 2)
    assert cosines.argmax(dim=1).tolist() == [0, 1]


def test_files_pil_and_tensors_are_one_picture(drawn, clip):
    with Image.open(drawn[FOX]) as image:
        pil = image.convert("RGB")
    pixels = torch.frombuffer(bytearray(pil.tobytes()), dtype=torch.uint8).view(128, 128, 3).permute(2, 0, 1) / 255
    rows = similarity([drawn[FOX], str(drawn[FOX]), pil, pixels], FOX, model=clip)
    assert rows.shape == (4, 1)
    assert torch.allclose(rows, rows[:1].expand(4, 1), atol=1e-5)
    assert torch.allclose(similarity(pixels, FOX, model=clip), rows[:1], atol=1e-5)
    assert torch.allclose(similarity(pixels[None], FOX, model=clip), rows[:1], atol=1e-5)


def test_shapes_may_differ_and_keep_their_order(clip):
    colours = ["red", "green", "blue", "white"]
    sizes = [(64, 64), (200, 100), (128, 128), (90, 140)]
    images = [Image.new("RGB", size, colour) for size, colour in zip(sizes, colours, strict=True)]
    together = similarity(images, FOX, model=clip)
    assert torch.allclose(together, torch.cat([similarity(image, FOX, model=clip) for image in images]), atol=1e-5)


def test_scores_are_those_that_the_pictures_carry(drawn, clip):
    for text, path in drawn.items():
        [found] = score(path, text, model=clip)
        assert found.captions > 900
        assert found.percentile is not None
        assert found.percentile > 90
    both = score(drawn.values(), FOX, model=clip)
    assert both[0].similarity > both[1].similarity


def test_rank_puts_the_best_first_and_says_which_it_was(drawn, clip):
    first, last = rank([drawn[CAR], drawn[FOX]], FOX, model=clip)
    assert (first.index, first.image, last.index) == (1, drawn[FOX], 0)
    assert first.score.rank > last.score.rank


def test_search_finds_what_is_meant_and_what_looks_alike(drawn):
    folder = drawn[FOX].parent
    assert search("a car", [folder], top=1)[0].path == drawn[CAR]
    found = search(None, [folder], like=drawn[FOX])
    assert [each.path for each in found] == [drawn[FOX], drawn[CAR]]
    with pytest.raises(SettingsError, match="A search is words"):
        search(" ", [folder])


def test_diversity_of_pictures(drawn, clip):
    twice = diversity([drawn[FOX], drawn[FOX]], model=clip)
    both = diversity(drawn.values(), model=clip)
    assert twice.vendi == pytest.approx(1, abs=1e-3)
    assert 1.01 < both.vendi <= 2
    with pytest.raises(SettingsError, match="images must be two or more, got '1'"):
        diversity([drawn[FOX]], model=clip)


def test_any_siglip_by_its_folder(drawn, tmp_path):
    folder = str(tiny_siglip.save(tmp_path / "siglip", "siglip2"))
    with Image.open(drawn[FOX]) as image:
        wide = image.resize((200, 80))
    assert similarity([wide, image], ["a fox", "an owl"], model=folder).shape == (2, 2)
    [classify_features] = classify(wide, ["a fox", "an owl"], model=folder)
    assert sum(guess.probability for guess in classify_features) == pytest.approx(1)


def test_what_cannot_be_asked_is_one_line(drawn, clip, tmp_path):
    with pytest.raises(SettingsError, match="images must be one or more, got none"):
        similarity([], FOX, model=clip)
    with pytest.raises(SettingsError, match="texts must be one, or as many as the 2 images, got '3'"):
        score(drawn.values(), [FOX] * 3, model=clip)
    with pytest.raises(ImageFileError, match=r"none\.png' cannot be opened: No such file or directory"):
        similarity(tmp_path / "none.png", FOX, model="org/never-loaded")
