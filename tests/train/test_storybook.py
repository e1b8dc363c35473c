"""Tokenizer, CLIP pairs and the storybook folder: every part is a standard class that loads back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from clipgen.models import read_vocabulary
from clipgen.models.load_clip import load_encoder
from clipgen.train.captioner import build_coca
from clipgen.train.clip import ClipPart, ClipWithHeads
from clipgen.train.clip_configs import build_clip, build_judge
from clipgen.train.data import CachedFeatures, Renders
from clipgen.train.latent_head import LatentHeadPart, build_latent_head
from clipgen.train.recipe import shipped
from clipgen.train.render_file import RenderFile
from clipgen.train.storybook import Parts, assemble
from clipgen.train.tokenizer import corpus, train_tokenizer
from clipgen.train.unet import UnetPart, build_scheduler, build_unet, emphasis, text_encoder_of
from clipgen.train.vae import build_vae
from clipgen.world.scene import Mix, sample_scene
from clipgen.world.vocabulary import VOCABULARIES


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return train_tokenizer(corpus(3_000), size=4_096)


def test_words_of_the_vocabulary_are_single_tokens(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.tokenize("a picture of a fox in snow") == [
        f"{word}</w>" for word in ("a", "picture", "of", "a", "fox", "in", "snow")
    ]
    assert len(tokenizer) <= 4_096
    assert tokenizer.model_max_length == 32


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40))
def test_no_text_has_an_unknown_token(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert all(0 <= i < len(tokenizer) for i in ids)
    assert tokenizer.eos_token_id not in tokenizer(text, add_special_tokens=False).input_ids


def test_token_ids_are_equal_after_saving(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    texts = ["a fox in snow", "café 日本 🦊", "zwölf foxes"]
    assert CLIPTokenizer.from_pretrained(tmp_path)(texts).input_ids == tokenizer(texts).input_ids


def test_the_text_encoder_of_the_denoiser_is_that_of_clip(tokenizer: CLIPTokenizer) -> None:
    clip = build_clip(tokenizer)
    ids = tokenizer(["a fox in snow"], return_tensors="pt").input_ids
    with torch.no_grad():
        states = text_encoder_of(clip)(ids).last_hidden_state
        assert torch.equal(states, clip.text_model(ids).last_hidden_state)


@pytest.mark.parametrize("build", [build_clip, build_judge])
def test_position_embeddings_encode_column_and_row(
    build: Callable[[CLIPTokenizer], Any], tokenizer: CLIPTokenizer
) -> None:
    weight = build(tokenizer, 32).vision_model.embeddings.position_embedding.weight.detach()[-64:]
    positions = torch.stack([torch.arange(64) % 8, torch.arange(64) // 8], dim=1) / 3.5 - 1
    predicted = weight @ torch.linalg.pinv(weight, rtol=0.05) @ positions
    assert (predicted - positions).square().mean() < 0.1 * positions.square().mean()
    assert weight.std() > 0.2


def render_all(folder: Path, count: int, mix: Mix, size: int) -> Renders:
    file = RenderFile(folder, mix=mix, size=size)
    file.fill(count)
    return Renders.open(file, count)


@pytest.fixture(scope="module")
def renders(tmp_path_factory: pytest.TempPathFactory) -> Renders:
    """192 small images of one thing each, of which 24 are for validation."""
    return render_all(tmp_path_factory.mktemp("renders"), 192, Mix(tier=1, kinds=(1, 0, 0)), 32)


@pytest.mark.parametrize("build", [build_clip, build_judge])
def test_both_clips_learn_to_match_captions(
    build: Callable[[CLIPTokenizer], Any], tokenizer: CLIPTokenizer, renders: Renders, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    part = ClipPart(build(tokenizer, 32), tokenizer, renders, 16)
    part.to(torch.device("cpu"))
    optimizer, losses = torch.optim.AdamW(part.model.parameters(), 1e-3), []
    for step in range(12):
        loss, _ = part.loss(step, 0.0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    metrics = {name.removeprefix("val_") for name in part.evaluate(tmp_path)}
    assert metrics == {"r@1", "top1", "patches", "hard", "count"}  # nothing to swap
    part.model.save_pretrained(tmp_path / "model")
    loaded = ClipWithHeads.from_pretrained(tmp_path / "model")
    images = renders.images(np.arange(2))
    with torch.no_grad():
        assert torch.allclose(loaded.images(images)[0], part.model.images(images)[0], atol=1e-5)


def test_the_clip_learns_to_write_captions_and_is_saved_with_its_captioner(
    tokenizer: CLIPTokenizer, renders: Renders, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    clip = build_clip(tokenizer, 32)
    part = ClipPart(
        clip, tokenizer, renders, 16, captioner=build_coca(tokenizer, clip.config.vision_config.hidden_size)
    )
    part.to(torch.device("cpu"))
    optimizer, figures = torch.optim.AdamW(part.model.parameters(), 1e-3), list[dict[str, float]]()
    for step in range(12):
        loss, terms = part.loss(step, 0.0)
        loss.backward()
        assert step or clip.vision_model.embeddings.patch_embedding.weight.grad.abs().max() > 0
        optimizer.step()
        optimizer.zero_grad()
        figures.append(terms)
    assert figures[-1]["captions"] < 0.9 * figures[0]["captions"]
    assert {"val_captions", "val_exact"} < set(part.evaluate(tmp_path))
    part.model.save_pretrained(tmp_path / "clip" / "model")
    loaded = ClipWithHeads.from_pretrained(tmp_path / "clip" / "model")
    build_judge(tokenizer, 32).save_pretrained(tmp_path / "clip" / "judge")
    assert ClipWithHeads.from_pretrained(tmp_path / "clip" / "judge").captioner is None
    with torch.no_grad():
        _, states = part.model.images(renders.images(np.arange(2)))
        assert loaded.captioner.caption(states, tokenizer) == part.model.captioner.caption(states, tokenizer)


def test_features_of_an_image_are_computed_once() -> None:
    computed: list[int] = []

    def compute(indices: npt.NDArray[np.int64]) -> torch.Tensor:
        computed.extend(indices.tolist())
        return torch.from_numpy(indices).float()[:, None].requires_grad_() * 2

    cache = CachedFeatures(compute)
    for indices in ([3, 1, 3], [1, 0, 3]):
        features = cache(np.array(indices))
        assert torch.equal(features[:, 0], 2 * torch.tensor(indices))
        assert not features.requires_grad
    assert computed == [3, 1, 0]


def test_the_latent_head_learns_the_features_of_clip(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    renders = render_all(tmp_path / "renders", 64, Mix(tier=1, kinds=(1, 0, 0)), 128)
    clip = build_clip(tokenizer, 64)
    head = build_latent_head(clip, 16, 8)
    assert torch.equal(head.visual_projection.weight, clip.visual_projection.weight)
    head = build_latent_head(build_clip(tokenizer, 64), 16, 8)  # of another CLIP, so that the initial loss is high
    part = LatentHeadPart(head, clip, tokenizer, build_vae(), renders, 16)
    part.to(torch.device("cpu"))
    optimizer, losses = torch.optim.AdamW(part.model.parameters(), 1e-3), []
    for step in range(10):
        loss, _ = part.loss(step, 0.0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert part.head.features(torch.randn(2, 16, 6, 8), torch.tensor([0.0, 1.0])).norm(dim=1).allclose(torch.ones(2))


def test_errors_inside_boxes_of_things_have_more_weight() -> None:
    scene = sample_scene(5, Mix(tier=1, kinds=(1, 0, 0), several=0))
    weights = emphasis([scene, scene], 16)
    ((x, foot, height),) = scene.things[0].boxes
    assert weights.shape == (2, 1, 16, 16)
    assert weights.mean() == pytest.approx(1)
    assert weights[0, 0, int(16 * (foot - height / 2)), int(16 * x)] == 3 * weights[0, 0, 0, 0]


def test_the_denoiser_learns_and_unrecognised_concepts_are_sampled_more_often(
    tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    renders = render_all(tmp_path / "renders", 96, Mix(tier=1, kinds=(1, 0, 0)), 64)
    clip, vae, unet = build_clip(tokenizer, 32), build_vae(), build_unet(256, (16, 32, 32), 4, 16)
    part = UnetPart(unet, text_encoder_of(clip), vae, tokenizer, renders, 8, clip=clip, prompts=["a fox in snow"])
    part.to(torch.device("cpu"))
    optimizer, losses = torch.optim.AdamW(unet.parameters(), 2e-3), []
    for step in range(12):
        loss, _ = part.loss(step, 0.0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-3:]) < sum(losses[:3])
    with torch.no_grad():
        figures = part.evaluate(tmp_path)
    assert {"v_100", "v_900", "named", "named_average"} <= set(figures)
    assert part.balance is not None
    recognised, weights = part.balance.recognised, part.balance.weights
    assert weights[recognised.argmin()] == weights.max()
    assert weights.max() <= 4 * weights.min()


def test_the_folder_loads_with_plain_diffusers(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(0)
    unet = build_unet(256, (16, 32, 32), 16, 16)
    clip = build_clip(tokenizer)
    parts = Parts(
        clip=clip, judge=build_judge(tokenizer), latent_head=build_latent_head(clip, 16, 16),
        tokenizer=tokenizer, vae=build_vae(),
        unet=unet, scheduler=build_scheduler(), side=256, vocabulary=2,
    )  # fmt: skip
    assemble(tmp_path, parts)
    assert read_vocabulary(tmp_path) == VOCABULARIES["storybook"]
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a fox in snow", num_inference_steps=1).images[0].size == (256, 256)
    assert "_name_or_path" not in "".join(path.read_text() for path in tmp_path.glob("*/config.json"))
    files = {line.split("  ")[1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines()}
    assert {"unet/diffusion_pytorch_model.safetensors", "clip/model.safetensors", "model_index.json"} <= files
    pixels = torch.rand(2, 3, 128, 128)
    for name in ("clip", "judge"):
        encoder = load_encoder(str(tmp_path / name), torch.device("cpu"))
        assert encoder.text_features(["a fox in snow"]).shape == (1, encoder.model.config.text_config.hidden_size)
        assert torch.allclose(encoder.preprocess(pixels), pixels * 2 - 1, atol=1e-6)  # the preprocessing of training


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "AutoPipelineForText2Image", "DiffusionPipeline"])
def test_the_bundled_folder_loads_without_a_dtype(name: str) -> None:
    import diffusers

    pipe = getattr(diffusers, name).from_pretrained(shipped())
    pipe.set_progress_bar_config(disable=True)
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.float32}
    assert len(pipe("a fox in snow", num_inference_steps=1).images) == 1
