from __future__ import annotations

import diffusers
import pytest
import tiny
import torch
from parity import assert_rejected, clipgen_images, copy_with_changes, diffusers_images, max_difference

from clipgen import Pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_chroma(tmp_path_factory.mktemp("models") / "tiny-chroma")


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def reference(folder):
    return diffusers.ChromaPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


@pytest.mark.parametrize(
    "options",
    [{"guidance_scale": 3.0}, {"guidance_scale": 5.0, "negative_prompt": "rain"}, {"guidance_scale": 1.0}],
)
def test_images_equal_those_of_diffusers(pipe, reference, options):
    images = diffusers_images(reference, **options, max_sequence_length=32)
    assert max_difference(clipgen_images(pipe, **options), images) <= 1e-4


def test_defaults_come_from_the_family(pipe):
    assert pipe.family.defaults == {
        "steps": 40,
        "width": 1024,
        "height": 1024,
        "scheduler": "flow_euler",
        "guidance_scale": 3.0,
        "eta": 0.0,
    }
    family = pipe.family
    assert family.latent_shape(96, 64) == (4, 8, 12)
    assert family.image_seq_len(96, 64) == 4 * 6
    assert family.sigmas(4) == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("transformer/config.json", {"axes_dims_rope": [4, 4, 4]}, "axes_dims_rope must be 3 numbers that sum to"),
        (
            "transformer/config.json",
            {"axes_dims_rope": [4, 4, 10**9]},
            "axes_dims_rope is 1000000000, but",
        ),
        ("transformer/config.json", {"in_channels": 18}, "tensors are of another shape"),
        (
            "transformer/config.json",
            {"approximator_layers": 3000},
            "approximator_layers is 3000, but",
        ),
        ("model_index.json", {"tokenizer": ["transformers", "CLIPTokenizer"]}, "loads transformers.T5TokenizerFast"),
    ],
)
def test_inconsistent_folders_raise_one_line_errors(folder, tmp_path, file, changes, message):
    assert_rejected(copy_with_changes(folder, tmp_path / "model", file, **changes), message)
