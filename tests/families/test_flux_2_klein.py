from __future__ import annotations

import diffusers
import pytest
import tiny
import torch
from parity import assert_rejected, clipgen_images, clipgen_results, copy_with_changes, diffusers_images, max_difference

from clipgen import Pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_flux_2_klein(tmp_path_factory.mktemp("models") / "tiny-klein", distilled=False)


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def reference(folder):
    return diffusers.Flux2KleinPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


@pytest.fixture(scope="module")
def distilled(folder, tmp_path_factory):
    copy = tmp_path_factory.mktemp("distilled") / "model"
    return copy_with_changes(folder, copy, "model_index.json", is_distilled=True)


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
def test_images_equal_those_of_diffusers(pipe, reference, guidance_scale):
    """The flow shift depends on the number of image tokens and of steps."""
    images = diffusers_images(reference, guidance_scale=guidance_scale)
    assert max_difference(clipgen_images(pipe, guidance_scale=guidance_scale), images) <= 1e-4


def test_the_distilled_model_runs_once_per_step(distilled):
    reference = diffusers.Flux2KleinPipeline.from_pretrained(distilled, dtype=torch.float32, local_files_only=True)
    pipe = Pipeline.from_pretrained(str(distilled))
    rows = []
    pipe.family.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(args[0])), with_kwargs=True
    )
    generated = clipgen_results(pipe, negative_prompt="rain", guidance_scale=4.0)
    assert rows == [2] * 4
    assert [note.code for note in generated[0].warnings] == ["negative-prompt-unread", "size", "no-clip"]
    images = torch.stack([result.pixels for result in generated])
    assert max_difference(images, diffusers_images(reference, guidance_scale=4.0)) <= 1e-4
    assert (pipe.family.defaults["steps"], pipe.family.defaults["guidance_scale"]) == (4, 1.0)


def test_the_shift_is_that_of_diffusers(pipe):
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    for side, steps in ((256, 4), (1024, 50), (2048, 8)):
        tokens = pipe.family.image_seq_len(side, side)
        assert pipe.family.shift_mu(side, side, steps) == pytest.approx(compute_empirical_mu(tokens, steps))


def test_defaults_come_from_the_family(pipe):
    assert pipe.family.defaults == {
        "steps": 50,
        "width": 1024,
        "height": 1024,
        "scheduler": "flow_euler",
        "guidance_scale": 4.0,
        "eta": 0.0,
    }
    family = pipe.family
    assert family.latent_shape(96, 64) == (16, 4, 6)
    assert family.image_seq_len(96, 64) == 4 * 6
    assert family.sigmas(4) == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("transformer/config.json", {"axes_dims_rope": [4, 4, 8]}, "axes_dims_rope must be 4 numbers that sum to"),
        ("transformer/config.json", {"joint_attention_dim": 32}, "tensors are of another shape"),
        (
            "model_index.json",
            {"text_encoder": ["transformers", "CLIPTextModel"]},
            "loads transformers.Qwen3",
        ),
    ],
)
def test_inconsistent_folders_raise_one_line_errors(folder, tmp_path, file, changes, message):
    assert_rejected(copy_with_changes(folder, tmp_path / "model", file, **changes), message)
