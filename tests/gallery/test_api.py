"""similarity, score, classify, rank, search and diversity, with storybook's CLIP."""

from __future__ import annotations

import json

import pytest
import tiny_siglip
import torch
from PIL import Image

from clipgen import ImageFileError, SettingsError, classify, diversity, rank, score, search, similarity
from clipgen.models.ids import BUNDLED

from .conftest import CAR, FOX

LABELS = ["a photo of a fox", "a photo of a car"]


def test_results_equal_those_of_transformers_clip(generated, clip):
    """CLIPModel with CLIPProcessor gives the same similarities and probabilities."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder = BUNDLED["storybook"] / "clip"
    model = CLIPModel.from_pretrained(folder).float()
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    processor = CLIPProcessor(CLIPImageProcessorPil(**settings), CLIPTokenizer.from_pretrained(folder))
    with Image.open(generated[FOX]) as image:
        large = image.resize((300, 200))
    inputs = processor(text=LABELS, images=large, return_tensors="pt", padding=True)
    with torch.no_grad():
        outputs = model(**inputs)
    logits_per_image = outputs.logits_per_image
    probs = logits_per_image.softmax(dim=1)
    ours = similarity(large, LABELS, model=clip)
    assert torch.allclose(ours * model.logit_scale.exp(), logits_per_image, atol=1e-4)
    [labels] = classify(large, LABELS, model=clip)
    by_label = {each.label: each.probability for each in labels}
    assert torch.allclose(torch.tensor([[by_label[label] for label in LABELS]]), probs, atol=1e-4)


def test_storybooks_clip_recognises_generated_images(generated, clip):
    fox, car = classify(generated.values(), LABELS, model=clip)
    assert (fox[0].label, car[0].label) == tuple(LABELS)
    assert min(fox[0].probability, car[0].probability) > 0.6
    cosines = similarity(list(generated.values()), [FOX, CAR], model=clip)
    assert cosines.shape == (2, 2)
    assert cosines.argmax(dim=1).tolist() == [0, 1]


def test_paths_pil_images_and_tensors_give_the_same_features(generated, clip):
    with Image.open(generated[FOX]) as image:
        pil = image.convert("RGB")
    pixels = torch.frombuffer(bytearray(pil.tobytes()), dtype=torch.uint8).view(128, 128, 3).permute(2, 0, 1) / 255
    rows = similarity([generated[FOX], str(generated[FOX]), pil, pixels], FOX, model=clip)
    assert rows.shape == (4, 1)
    assert torch.allclose(rows, rows[:1].expand(4, 1), atol=1e-5)
    assert torch.allclose(similarity(pixels, FOX, model=clip), rows[:1], atol=1e-5)
    assert torch.allclose(similarity(pixels[None], FOX, model=clip), rows[:1], atol=1e-5)


def test_images_of_different_sizes_keep_their_order(clip):
    colours = ["red", "green", "blue", "white"]
    sizes = [(64, 64), (200, 100), (128, 128), (90, 140)]
    images = [Image.new("RGB", size, colour) for size, colour in zip(sizes, colours, strict=True)]
    together = similarity(images, FOX, model=clip)
    assert torch.allclose(together, torch.cat([similarity(image, FOX, model=clip) for image in images]), atol=1e-5)


def test_generated_images_have_high_scores_for_their_prompts(generated, clip):
    for text, path in generated.items():
        [result] = score(path, text, model=clip)
        assert result.captions > 900
        assert result.percentile is not None
        assert result.percentile > 90
    both = score(generated.values(), FOX, model=clip)
    assert both[0].similarity > both[1].similarity


def test_rank_returns_the_best_image_first_with_its_index(generated, clip):
    first, last = rank([generated[CAR], generated[FOX]], FOX, model=clip)
    assert (first.index, first.image, last.index) == (1, generated[FOX], 0)
    assert first.score.rank > last.score.rank


def test_search_by_text_and_by_image(generated):
    folder = generated[FOX].parent
    assert search([folder], "a car", top=1)[0].path == generated[CAR]
    hits = search([folder], like=generated[FOX])
    assert [each.path for each in hits] == [generated[FOX], generated[CAR]]
    with pytest.raises(SettingsError, match="A search is words"):
        search([folder], " ")


def test_diversity_of_equal_and_different_images(generated, clip):
    same = diversity([generated[FOX], generated[FOX]], model=clip)
    different = diversity(generated.values(), model=clip)
    assert same.vendi == pytest.approx(1, abs=1e-3)
    assert 1.01 < different.vendi <= 2
    with pytest.raises(SettingsError, match="images must be two or more, got '1'"):
        diversity([generated[FOX]], model=clip)


def test_a_siglip_folder_works_as_model(generated, tmp_path):
    folder = str(tiny_siglip.save(tmp_path / "siglip", "siglip2"))
    with Image.open(generated[FOX]) as image:
        wide = image.resize((200, 80))
    assert similarity([wide, image], ["a fox", "an owl"], model=folder).shape == (2, 2)
    [labels] = classify(wide, ["a fox", "an owl"], model=folder)
    assert sum(each.probability for each in labels) == pytest.approx(1)


def test_invalid_input_raises_one_line_errors(generated, clip, tmp_path):
    with pytest.raises(SettingsError, match="images must be one or more, got none"):
        similarity([], FOX, model=clip)
    with pytest.raises(SettingsError, match="texts must be one, or as many as the 2 images, got '3'"):
        score(generated.values(), [FOX] * 3, model=clip)
    with pytest.raises(ImageFileError, match=r"none\.png' cannot be opened: No such file or directory"):
        similarity(tmp_path / "none.png", FOX, model="org/never-loaded")
