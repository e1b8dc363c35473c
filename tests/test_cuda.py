"""Tests that need a CUDA card; `python -m clipgen.bench.gpu` runs them."""

from __future__ import annotations

import pytest
import tiny
import torch
from parity import clipgen_images, max_difference

from clipgen import Pipeline
from clipgen.device import pick_dtype, release_memory
from clipgen.models import load
from clipgen.pipeline import offload

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_sd3(tmp_path_factory.mktemp("models") / "tiny-sd3")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_images_are_close_to_those_of_the_cpu(folder, dtype):
    on_card = clipgen_images(Pipeline.from_pretrained(str(folder), "cuda", dtype))
    on_cpu = clipgen_images(Pipeline.from_pretrained(str(folder), "cpu", "float32"))
    assert (on_card - on_cpu).abs().mean() <= (1e-3 if dtype == "float32" else 4 / 255)


def test_auto_is_bfloat16_for_models_that_were_trained_in_it(folder):
    expected = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    assert pick_dtype("auto", torch.device("cuda"), prefers_bfloat16=True) == expected
    assert Pipeline.from_pretrained(str(folder), "cuda").family.denoiser.dtype == expected


@pytest.mark.parametrize("swaps", [False, True])
def test_text_encoders_that_wait_on_the_cpu_give_the_same_images(folder, monkeypatch, swaps):
    expected = clipgen_images(Pipeline.from_pretrained(str(folder), "cuda", "float32"))
    monkeypatch.setattr(load, "RESERVE", 2**60)
    monkeypatch.setattr(offload, "RESERVE", 2**60 if swaps else 0)
    pipe = Pipeline.from_pretrained(str(folder), "cuda", "float32")
    assert pipe.family.text_encoders_wait
    assert max_difference(clipgen_images(pipe), expected) == 0
    assert {encoder.model.device.type for encoder in pipe.family.text_encoders} == {"cpu"}
    assert pipe.family.denoiser.device.type == "cuda"


def test_a_compiled_denoiser_gives_nearly_equal_images(folder):
    expected = clipgen_images(Pipeline.from_pretrained(str(folder), "cuda", "float32"))
    compiled = Pipeline.from_pretrained(str(folder), "cuda", "float32", compile_denoiser=True)
    assert max_difference(clipgen_images(compiled), expected) <= 1 / 255


def test_a_second_model_gets_the_memory_of_the_first(folder):
    Pipeline.from_pretrained(str(folder), "cuda")
    release_memory(torch.device("cuda"))
    before = torch.cuda.memory_allocated()
    pipe = Pipeline.from_pretrained(str(folder), "cuda")
    del pipe
    release_memory(torch.device("cuda"))
    assert torch.cuda.memory_allocated() <= before
