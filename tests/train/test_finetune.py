"""Fine-tuning on captioned images: reading, skipping, learning, stopping and resuming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from clipgen.clip.score import load_features, read_captions
from clipgen.errors import ClipgenError, SettingsError
from clipgen.families import LAYOUTS
from clipgen.models import find_model, load_encoder, preflight
from clipgen.models.load_captioner import load_captioner
from clipgen.train.captioned import captioned, find_pairs
from clipgen.train.finetune import FineTuning

COLOURS = ("red", "green", "blue", "orange", "purple", "black")
SHAPES = ("square", "circle", "bar")


def write_shapes(folder: Path) -> list[tuple[Path, str]]:
    """Saves 36 images of coloured shapes and returns their paths and captions."""
    folder.mkdir()
    samples = []
    for k in range(2):
        for colour in COLOURS:
            for shape in SHAPES:
                image = Image.new("RGB", (150 + 20 * k, 140), "white")
                box = (30 + 10 * k, 30, 110 + 10 * k, 60 if shape == "bar" else 110)
                pen = ImageDraw.Draw(image)
                (pen.ellipse if shape == "circle" else pen.rectangle)(box, fill=colour)
                path = folder / f"{k}-{colour}-{shape}.png"
                image.save(path)
                samples.append((path, f"a {colour} {shape}"))
    return samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images with one .txt file each, and three images that cannot be used."""
    for path, caption in write_shapes(tmp_path / "data"):
        path.with_suffix(".txt").write_text(f"{caption}\n\n{caption} on white\n", "utf-8")
    data = tmp_path / "data"
    for name, content in (("broken.png", b"text"), ("empty.jpg", b"")):
        (data / name).write_bytes(content)
        (data / name).with_suffix(".txt").write_text("nothing")
    Image.new("RGB", (64, 64)).save(data / "without-caption.png")
    return data


def ignore_line(line: str) -> None:
    """Ignores a log line."""


class TestData:
    def test_a_folder_of_images_and_texts(self, folder: Path, tmp_path: Path) -> None:
        data = captioned(folder, tmp_path / "kept", 64)
        assert (len(data), data.skipped) == (36, 2)
        assert data.captions[0] == ("a black bar", "a black bar on white")
        assert data.images(np.array([0, 3])).shape == (2, 3, 64, 64)
        assert float(data.images(np.array([0])).max()) == 1.0

    def test_a_table_with_files_relative_to_it(self, tmp_path: Path) -> None:
        samples = write_shapes(tmp_path / "data")
        rows = [f'data/{path.name},"{caption}, plain"' for path, caption in samples] + [
            f"data/{samples[0][0].name},again"
        ]
        (tmp_path / "list.csv").write_text("\n".join(["\ufeffFile_Name,Caption", *rows, "none.png,x"]), "utf-8")
        pairs = find_pairs(tmp_path / "list.csv")
        assert pairs[0].captions == ("a red square, plain", "again")
        data = captioned(tmp_path / "list.csv", tmp_path / "kept", 32)
        assert (len(data), data.skipped) == (36, 1)

    def test_data_is_read_again_only_after_a_change(self, folder: Path, tmp_path: Path) -> None:
        captioned(folder, tmp_path / "kept", 32)
        before = (tmp_path / "kept" / "pictures.u8").stat().st_mtime_ns
        captioned(folder, tmp_path / "kept", 32)
        assert (tmp_path / "kept" / "pictures.u8").stat().st_mtime_ns == before
        (folder / "0-red-bar.txt").write_text("something else")
        assert ("something else",) in captioned(folder, tmp_path / "kept", 32).captions

    def test_too_few_images_raise_a_one_line_error(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "wrong.csv").write_text("a,b\n1,2\n")
        for name, message in (
            ("none", "none' does not exist. Works: a folder, or a CSV file"),
            ("empty", "must hold at least 8 pictures with a .txt of the same name, got '0'"),
            (
                "wrong.csv",
                "needs columns one of file, image, path, file_name, filename and one of caption, text, prompt",
            ),
        ):
            with pytest.raises(SettingsError) as error:
                find_pairs(tmp_path / name)
            assert message in str(error.value)

    def test_broken_images_do_not_count(self, tmp_path: Path) -> None:
        data = tmp_path / "data"
        data.mkdir()
        for k in range(9):
            (data / f"{k}.png").write_text("text")
            (data / f"{k}.txt").write_text("a caption")
        with pytest.raises(SettingsError, match="must hold at least 8 pictures that can be read"):
            captioned(data, tmp_path / "kept", 32)


class TestTraining:
    def test_clip_learns(self, folder: Path, tmp_path: Path) -> None:
        lines: list[str] = []
        part = FineTuning(folder, tmp_path / "out", say=lines.append)._clip()
        assert lines == ["2 pictures could not be read and are left out", "36 captioned pictures"]
        assert (part.trained_on, part.batch) == (32, 32)
        part.to(torch.device("cpu"))
        optimizer, losses = torch.optim.AdamW(part.model.parameters(), 3e-4), []
        for step in range(8):
            loss, _ = part.loss(step, 0.0)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0]

    def test_clip_training_resumes_and_its_model_loads(self, folder: Path, tmp_path: Path) -> None:
        model = FineTuning(folder, tmp_path / "out", say=ignore_line).stage("clip", 0.02)
        log = tmp_path / "out" / "clip" / "log.jsonl"
        first = json.loads(log.read_text().splitlines()[-1])
        assert FineTuning(folder, tmp_path / "out", say=ignore_line).stage("clip", first["minutes"] + 0.02) == model
        assert json.loads(log.read_text().splitlines()[-1])["step"] > first["step"]
        encoder = load_encoder(str(model), torch.device("cpu"))
        assert encoder.name == "model/clip"
        stored = load_features(model / "clip", read_captions())
        assert torch.allclose(stored[:2], encoder.text_features(read_captions()[:2]), atol=1e-4)

    @pytest.mark.parametrize("stage", ["vae", "unet"])
    def test_the_vae_and_unet_are_saved_in_a_valid_model(self, folder: Path, tmp_path: Path, stage: str) -> None:
        model = FineTuning(folder, tmp_path / "out", say=ignore_line).stage(stage, 0.02)
        checked = preflight(find_model(str(model)), LAYOUTS)
        assert set(checked.networks) >= {"unet", "vae", "text_encoder", "clip"}
        assert checked.vocabulary is None
        log = [json.loads(line) for line in (tmp_path / "out" / stage / "log.jsonl").read_text().splitlines()]
        assert ("psnr" if stage == "vae" else "v_500") in log[-1]

    @pytest.mark.parametrize("stage", ["captioner", "coca"])
    def test_a_captioner_is_trained_and_loads(self, folder: Path, tmp_path: Path, stage: str) -> None:
        model = FineTuning(folder, tmp_path / "out", mapper="transformer", say=ignore_line).stage(stage, 0.02)
        kind = {"captioner": "clipcap", "coca": "coca"}[stage]
        assert load_captioner(str(model), torch.device("cpu")).kind == kind

    def test_a_state_of_another_network_raises_an_error(self, folder: Path, tmp_path: Path) -> None:
        FineTuning(folder, tmp_path / "out", mapper="transformer", say=ignore_line).stage("captioner", 0.01)
        with pytest.raises(ClipgenError, match=r"state.safetensors' is the state of another network"):
            FineTuning(folder, tmp_path / "out", mapper="mlp", say=ignore_line).stage("captioner", 0.02)

    def test_an_unknown_tier_raises_an_error(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(ClipgenError, match=r"Unknown tier 'tpu'. Tiers: cpu, gpu."):
            FineTuning(folder, tmp_path / "out", "tpu", say=ignore_line)
