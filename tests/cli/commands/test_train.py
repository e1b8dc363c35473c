"""`clipgen train`: its options, and errors of the recipe as one line."""

from __future__ import annotations

import pytest

from ..conftest import Run


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["in", "the", "snow"], 2, "To draw these words: clipgen generate train in the snow"),
        (["unet"], 2, "Missing option '--minutes'"),
        (["unet", "--minutes", "nan"], 2, "minutes must be above 0, got 'nan'"),
        (["vae", "--minutes", "0"], 2, "minutes must be above 0, got '0'"),
        (["captioner", "--minutes", "1", "--kind", "gpt"], 2, "Unknown kind 'gpt'. Kinds: clipcap, coca."),
        (["captioner", "--minutes", "1", "--mapper", "gru"], 2, "Unknown mapper 'gru'. Mappers: mlp, transformer."),
        (["captioner", "--minutes", "1", "--kind", "coca", "--mapper", "mlp"], 2, "'coca' has no mapper"),
        (["assemble", "--tier", "tpu"], 1, "Unknown tier 'tpu'. Tiers: cpu, gpu."),
        (["captioner", "--minutes", "1", "--kind", "coca"], 2, "storybook's coca is trained together with its CLIP"),
        (["assemble"], 1, "Stage 'clip' has not been trained in 'runs/storybook'. Run: clipgen train clip"),
    ],
)
def test_invalid_options(run: Run, words: list[str], code: int, message: str) -> None:
    ran = run("train", *words)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err
